#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0

"""
mlx5_rs on a device that fails: each fault is seen and counted, and traffic
goes on.

Needs the device model with the fault plan mlx5_rs_faults.toml. A UDP datagram
to a port that the plan names triggers a fault.
"""

import os
import shlex
import socket
import threading
import time
from contextlib import contextmanager

from lib.py import EthtoolFamily, KsftNamedVariant, KsftSkipEx, NetDrvEpEnv
from lib.py import cmd, defer, ip
from lib.py import ksft_disruptive, ksft_eq, ksft_exit, ksft_ge, ksft_gt
from lib.py import ksft_ne, ksft_run, ksft_true, ksft_variants
from net.lib.py import ksft_busy_wait

# Seconds in which the driver has to be back.
PATIENCE = 20


def _trigger(cfg, port):
    """Make a fault happen."""
    family = socket.AF_INET6 if cfg.addr_ipver == "6" else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (cfg.remote_addr, port))


def _ping(cfg, count=1):
    return cmd(f"ping -q -i 0.05 -c {count} -W 1 {cfg.remote_addr}",
               fail=False).ret == 0


def _wait_for(condition, what=""):
    ksft_busy_wait(condition, sleep=0.05, deadline=PATIENCE, comment=what)


def _counters(cfg, wanted):
    """A counter of all channels together."""
    for line in cmd(f"ethtool -S {cfg.ifname}").stdout.splitlines()[1:]:
        name, value = line.split(":")
        if name.strip() == wanted:
            return int(value)
    raise KeyError(wanted)


@contextmanager
def _sending(cfg):
    """Datagrams are sent all the time, as fast as that goes."""
    family = socket.AF_INET6 if cfg.addr_ipver == "6" else socket.AF_INET
    stop = threading.Event()

    def send():
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            while not stop.is_set():
                try:
                    sock.sendto(bytes(1000), (cfg.remote_addr, 9))
                except OSError:
                    pass  # no buffers, or the other end says that it has no such port

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _traffic_resumes(cfg):
    _wait_for(lambda: _ping(cfg), "traffic resumes")
    ksft_true(_ping(cfg, 20), "and goes on")


_broken_queues = [
    KsftNamedVariant("sq_error", 7001, "tx_errors"),
    KsftNamedVariant("rq_error", 7002, "rx_errors"),
    KsftNamedVariant("rq_length_lie", 7004, "rx_errors"),
    KsftNamedVariant("rq_opcode_lie", 7005, "rx_errors"),
    KsftNamedVariant("rq_owner_lie", 7006, "recover"),
    KsftNamedVariant("rq_repeated", 7007, "rx_errors"),
    KsftNamedVariant("sq_counter_lie", 7008, "tx_errors"),
    KsftNamedVariant("sq_repeated", 7009, "tx_errors"),
    KsftNamedVariant("sq_opcode_lie", 7010, "tx_errors"),
]


@ksft_variants(_broken_queues)
@ksft_disruptive
def queue_recovers(cfg, port, counter):
    """A queue that fails, or a device that lies: counted, made anew."""
    errors = _counters(cfg, counter)
    recovered = _counters(cfg, "recover")
    _trigger(cfg, port)

    def seen():
        _ping(cfg)
        return _counters(cfg, "recover") > recovered

    _wait_for(seen, "the queues are made anew")
    ksft_gt(_counters(cfg, counter), errors, counter)
    _traffic_resumes(cfg)


def _rx_stats(cfg):
    link = ip(f"-s -s link show dev {cfg.ifname}", json=True)[0]
    return link["stats64"]["rx"]


def too_long(cfg):
    """Frames above the MTU are counted as errors."""
    mtu = cfg.dev["mtu"]
    remote = f"link set dev {cfg.remote_ifname} mtu"
    ip(f"{remote} {mtu + 1000}", host=cfg.remote)
    defer(ip, f"{remote} {mtu}", host=cfg.remote)
    before = _rx_stats(cfg)
    cmd(f"ping -q -c 5 -i 0.05 -W 1 -M do -s {mtu + 500} {cfg.addr}",
        host=cfg.remote, fail=False)
    for name in ("length_errors", "errors"):
        _wait_for(lambda goal=before[name] + 5, name=name:
                  _rx_stats(cfg)[name] >= goal, name)


def _flood(cfg):
    """The other end sends bursts of 128 datagrams, which the device segments."""
    program = f"""
import socket
family = socket.AF_INET6 if ":" in "{cfg.addr}" else socket.AF_INET
sock = socket.socket(family, socket.SOCK_DGRAM)
UDP_SEGMENT = 103
sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 64)
for _ in range(20):
    try:
        sock.sendto(bytes(128 * 64), ("{cfg.addr}", 9))
    except OSError:
        pass
"""
    cmd(f"python3 -c {shlex.quote(program)}", host=cfg.remote)


def no_buffers(cfg):
    """Packets for which there is no buffer are held back, or counted."""
    header = {"header": {"dev-index": cfg.ifindex}}
    ethtool = EthtoolFamily()
    entries = ethtool.rings_get(header)["rx"]
    cmd(f"ethtool -G {cfg.ifname} rx 64")
    defer(cmd, f"ethtool -G {cfg.ifname} rx {entries}")
    # A burst is larger than the ring, and all there before the interrupt.
    late = {"use-adaptive-rx": 0, "rx-usecs": 4000, "rx-max-frames": 65535}
    before = ethtool.coalesce_get(header)
    ethtool.coalesce_set({**header, **late})
    defer(ethtool.coalesce_set,
          {**header, **{name: before[name] for name in late}})

    dropped = _counters(cfg, "rx_out_of_buffer")
    paused = _counters(cfg, "tx_pause_ctrl_phy")
    _flood(cfg)
    ksft_gt(_counters(cfg, "tx_pause_ctrl_phy"), paused, "pause frames")
    ksft_eq(_counters(cfg, "rx_out_of_buffer"), dropped, "with pause frames")

    cmd(f"ethtool -A {cfg.ifname} tx off")
    defer(cmd, f"ethtool -A {cfg.ifname} tx on")
    ksft_ne(cmd(f"ethtool -A {cfg.ifname} autoneg on", fail=False).ret, 0)

    paused = _counters(cfg, "tx_pause_ctrl_phy")
    _flood(cfg)
    goal = _counters(cfg, "rx_out_of_buffer")
    ksft_gt(goal, dropped, "without pause frames")
    ksft_eq(_counters(cfg, "tx_pause_ctrl_phy"), paused, "no pause frames")
    _wait_for(lambda: _rx_stats(cfg)["missed_errors"] >= goal,
              "counted by the interface")
    _traffic_resumes(cfg)


@contextmanager
def _no_pages():
    """No page pool of the system has a page."""
    faults = "/sys/kernel/debug/fail_function"
    if not os.path.exists(faults):
        raise KsftSkipEx("kernel without CONFIG_FAIL_FUNCTION")

    def configure(name, value):
        with open(f"{faults}/{name}", "w", encoding="ascii") as attribute:
            attribute.write(f"{value}\n")

    configure("inject", "page_pool_alloc_netmems")
    try:
        # Without the call trace of each.
        configure("verbose", 0)
        configure("times", -1)
        configure("probability", 100)
        yield
    finally:
        configure("probability", 0)
        configure("inject", "")


def no_memory(cfg):
    """Without memory packets are lost, but no queue is."""
    def starves():
        _flood(cfg)
        return _counters(cfg, "rx_out_of_buffer") > dropped

    dropped, failed, recovered = (
        _counters(cfg, name)
        for name in ("rx_out_of_buffer", "rx_alloc_fail", "recover"))
    with _no_pages():
        _wait_for(starves, "all buffers are used")
        ksft_gt(_counters(cfg, "rx_alloc_fail"), failed, "failures")
    _traffic_resumes(cfg)
    ksft_eq(_counters(cfg, "recover"), recovered, "queues made anew")


_lost = [
    KsftNamedVariant("interrupt", 7011),
    KsftNamedVariant("event", 7013),
]


@ksft_variants(_lost)
@ksft_disruptive
def lost_wakeup(cfg, port):
    """An interrupt or an event of a channel is lost."""
    _trigger(cfg, port)
    _traffic_resumes(cfg)


def _set_mtu(cfg, mtu, fail=True):
    return cmd(f"ip link set dev {cfg.ifname} mtu {mtu}", fail=fail).ret


@ksft_disruptive
def lost_command_interrupt(cfg):
    """The interrupt of a command is lost."""
    before = cfg.dev["mtu"]
    _trigger(cfg, 7012)
    _set_mtu(cfg, before - 100)
    defer(_set_mtu, cfg, before)
    _traffic_resumes(cfg)


_failing_commands = [
    KsftNamedVariant("create_rq", 7014),
    KsftNamedVariant("create_tir", 7015),
]


@ksft_variants(_failing_commands)
@ksft_disruptive
def failed_command(cfg, port):
    """A command fails in the middle of a change, which is undone."""
    before = cfg.dev["mtu"]
    _trigger(cfg, port)
    # The queues that go on have packets in them.
    with _sending(cfg):
        ksft_ne(_set_mtu(cfg, before - 100, fail=False), 0, "refused")
    mtu = ip(f"link show dev {cfg.ifname}", json=True)[0]["mtu"]
    ksft_eq(mtu, before)
    _traffic_resumes(cfg)
    # Nothing is left of it.
    _set_mtu(cfg, before - 100)
    defer(_set_mtu, cfg, before)
    _traffic_resumes(cfg)


def _bus_device(cfg):
    return os.path.realpath(f"/sys/class/net/{cfg.ifname}/device")


def _is_dead(cfg):
    """Whether the interface is detached."""
    return cmd(f"ethtool -l {cfg.ifname}", fail=False).ret != 0


_fatal = [
    KsftNamedVariant("destroy_rq", 7018),
    KsftNamedVariant("health", 7020),
]


@ksft_variants(_fatal)
@ksft_disruptive
def given_up(cfg, port):
    """The device keeps a queue that is destroyed, or says that it cannot go on: it is given up at
    once, and works after a new start."""
    address = os.path.basename(_bus_device(cfg))
    driver = "/sys/bus/pci/drivers/mlx5_rs"
    _trigger(cfg, port)
    # Makes the queues anew, and destroys the former ones.
    _set_mtu(cfg, cfg.dev["mtu"] - 100, fail=False)
    _wait_for(lambda: _is_dead(cfg), "the device is given up")
    start = time.monotonic()
    ip(f"link set dev {cfg.ifname} down")
    ksft_ge(5, time.monotonic() - start, "commands fail at once")
    for act in ("unbind", "bind"):
        with open(f"{driver}/{act}", "w", encoding="utf-8") as file:
            file.write(address)
    names = f"/sys/bus/pci/devices/{address}/net"
    _wait_for(lambda: os.path.isdir(names), "it is there again")
    ksft_eq(os.listdir(names), [cfg.ifname])
    for version in ("4", "6"):
        if cfg.addr_v[version]:
            length = {"4": 24, "6": 64}[version]
            nodad = " nodad" if version == "6" else ""
            ip(f"addr add {cfg.addr_v[version]}/{length} dev {cfg.ifname}{nodad}")
    ip(f"link set dev {cfg.ifname} up")
    _traffic_resumes(cfg)


@ksft_disruptive
def surprise_removal(cfg):
    """The device is gone: commands fail at once, removing does not hang."""
    path = _bus_device(cfg)
    _trigger(cfg, 7021)
    _wait_for(lambda: _is_dead(cfg), "the device is given up")
    start = time.monotonic()
    with open(f"{path}/remove", "w", encoding="utf-8") as file:
        file.write("1")
    ksft_ge(10, time.monotonic() - start, "removed in time")
    ksft_true(not os.path.exists(path))


def main() -> None:
    """ Ksft boiler plate main """
    with NetDrvEpEnv(__file__, nsim_test=False) as cfg:
        driver = os.path.realpath(f"/sys/class/net/{cfg.ifname}/device/driver")
        if os.path.basename(driver) != "mlx5_rs":
            raise KsftSkipEx("only for mlx5_rs on the device model")
        # The last ones end the device.
        ksft_run([queue_recovers, no_buffers, no_memory, too_long,
                  lost_wakeup, lost_command_interrupt, failed_command,
                  given_up, surprise_removal],
                 args=(cfg, ))
    ksft_exit()


if __name__ == "__main__":
    main()
