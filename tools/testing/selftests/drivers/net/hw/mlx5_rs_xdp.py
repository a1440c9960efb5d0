#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0

"""
XDP on mlx5_rs, as far as drivers/net/xdp.py does not judge it: what excludes
each other, the largest MTU, programs that come and go under traffic, and
where packets go.

Programs are made of instructions, as they are a few each. They act on frames
of an EtherType for experiments, and let others pass.
"""

import ctypes
import os
import shlex
import socket
import struct

from lib.py import KsftNamedVariant, KsftSkipEx, NetDrvEpEnv, NetdevFamily
from lib.py import bkg, cmd, defer, ip, rand_port, wait_port_listen
from lib.py import ksft_disruptive, ksft_eq, ksft_exit, ksft_ge, ksft_gt
from lib.py import ksft_in, ksft_ne, ksft_run, ksft_true, ksft_variants
from net.lib.py import ksft_busy_wait

ETH_P_TEST = 0x88b5
ETH_HLEN = 14
PATIENCE = 20

_SO_RCVBUFFORCE = 33

ABORTED, DROP, PASS, TX, REDIRECT = range(5)

_BPFFS = "/sys/fs/bpf"
_SYS_BPF = 321
_BPF_PROG_LOAD = 5
_BPF_OBJ_PIN = 6
_BPF_PROG_TYPE_XDP = 6
_BPF_F_XDP_HAS_FRAGS = 1 << 5

# Functions that programs call
_REDIRECT = 23
_ADJUST_HEAD = 44
_ADJUST_TAIL = 65


def _insn(code, dst=0, src=0, off=0, imm=0):
    return struct.pack("<BBhi", code, dst | src << 4, off, imm)


def _mov(dst, imm):
    return _insn(0xb7, dst, imm=imm)


def _mov_reg(dst, src):
    return _insn(0xbf, dst, src)


def _load(size, dst, src, off):
    return _insn({4: 0x61, 2: 0x69}[size], dst, src, off)


def _store(size, dst, off, src):
    return _insn({4: 0x63, 2: 0x6b}[size], dst, src, off)


def _call(function):
    return _insn(0x85, imm=function)


def _exit(action):
    return _mov(0, action) + _insn(0x95)


def _ether_header(otherwise):
    """Load the start of the frame into r2, if it has a header; r6 has the
    context."""
    code = _load(4, 2, 6, 0) + _load(4, 3, 6, 4)
    code += _mov_reg(4, 2) + _insn(0x07, 4, imm=ETH_HLEN)
    return code + _insn(0xbd, 4, 3, 2) + _exit(otherwise)


def _program(act):
    """A program that does something with frames of the test."""
    code = _mov_reg(6, 1) + _ether_header(PASS)
    code += _load(2, 5, 2, 12)
    # Two instructions are skipped.
    code += _insn(0x15, 5, off=2, imm=socket.htons(ETH_P_TEST)) + _exit(PASS)
    return code + act


def _swap():
    """Swap the addresses and send the frame back."""
    code = _load(4, 3, 2, 0) + _load(2, 4, 2, 4)
    code += _load(4, 5, 2, 6) + _load(2, 7, 2, 10)
    code += _store(4, 2, 0, 5) + _store(2, 2, 4, 7)
    code += _store(4, 2, 6, 3) + _store(2, 2, 10, 4)
    return code + _exit(TX)


def _adjust(head, tail):
    """Move start and end by so many bytes, and write a header anew."""
    code = b""
    for function, delta in ((_ADJUST_TAIL, tail), (_ADJUST_HEAD, head)):
        code += _mov_reg(1, 6) + _mov(2, delta) + _call(function)
        # if it failed
        code += _insn(0x15, 0, off=2) + _exit(ABORTED)
    code += _ether_header(ABORTED)
    code += _mov(3, -1) + _store(4, 2, 0, 3) + _store(2, 2, 4, 3)
    code += _mov(3, socket.htons(ETH_P_TEST)) + _store(2, 2, 12, 3)
    return code + _exit(PASS)


def _redirect(ifindex):
    return _mov(1, ifindex) + _mov(2, 0) + _call(_REDIRECT) + _insn(0x95)


def _bpf(command, attr):
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attr, len(attr))
    ret = libc.syscall(_SYS_BPF, command, buffer, len(attr))
    if ret < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return ret


def _pin(code, frags=False):
    """Load a program and give it a name; returns that."""
    if not os.path.ismount(_BPFFS):
        cmd(f"mount -t bpf bpf {_BPFFS}")
    insns = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(65536)
    attr = struct.pack("<IIQQIIQII", _BPF_PROG_TYPE_XDP, len(code) // 8,
                       ctypes.addressof(insns), ctypes.addressof(licence),
                       1, len(log), ctypes.addressof(log), 0,
                       _BPF_F_XDP_HAS_FRAGS if frags else 0)
    try:
        prog = _bpf(_BPF_PROG_LOAD, attr)
    except OSError as e:
        raise OSError(e.errno, log.value.decode()) from e
    path = f"{_BPFFS}/mlx5_rs_xdp_{rand_port()}"
    name = ctypes.create_string_buffer(path.encode())
    try:
        _bpf(_BPF_OBJ_PIN, struct.pack("<QII", ctypes.addressof(name), prog, 0))
    finally:
        os.close(prog)
    defer(os.unlink, path)
    return path


def _set_program(cfg, path, fail=True):
    return cmd(f"ip -force link set dev {cfg.ifname} xdpdrv pinned {path}",
               fail=fail)


def _detach(cfg):
    ip(f"link set dev {cfg.ifname} xdpdrv off")


def _attach(cfg, code, frags=False):
    """Attach a program until the end of the case."""
    path = _pin(code, frags)
    _set_program(cfg, path)
    defer(_detach, cfg)


def _refused(result, text):
    ksft_ne(result.ret, 0, "is refused")
    ksft_in(text, result.stderr)


def _link(cfg):
    return ip(f"-d link show dev {cfg.ifname}", json=True)[0]


def _feature(cfg, value=None):
    """Switch ulp-ddp; returns whether it is on."""
    if value:
        cmd(f"ethtool -K {cfg.ifname} ulp-ddp {value}", fail=False)
    for line in cmd(f"ethtool -k {cfg.ifname}").stdout.splitlines():
        words = line.split()
        if words and words[0] in ("ulp-ddp:", "ulp-ddp-offload:"):
            return words[1] == "on"
    raise KsftSkipEx("no feature ulp-ddp")


def _without_ddp(cfg):
    if _feature(cfg):
        _feature(cfg, "off")
        defer(_feature, cfg, "on")


def _counters(cfg):
    """The counters of all channels together, and of each."""
    lines = cmd(f"ethtool -S {cfg.ifname}").stdout.splitlines()[1:]
    pairs = [line.split(":") for line in lines]
    return {name.strip(): int(value) for name, value in pairs}


def _errors(cfg):
    counters = _counters(cfg)
    names = ("rx_errors", "tx_errors", "ico_errors", "recover")
    return {name: counters[name] for name in names}


def _wait_for(condition, what=""):
    ksft_busy_wait(condition, sleep=0.05, deadline=PATIENCE, comment=what)


def _ping(cfg, size=100, count=3):
    """Send packets of that many bytes, which come back."""
    payload = size - (48 if cfg.addr_ipver == "6" else 28)
    return cmd(f"ping -q -M do -s {payload} -i 0.05 -c {count} -W 2 "
               f"{cfg.remote_addr}", fail=False).ret == 0


def _mac(link):
    return link["address"].replace(":", "")


def _remote_mac(cfg):
    return _mac(ip(f"link show dev {cfg.remote_ifname}", json=True,
                   host=cfg.remote)[0])


# No more frames are on their way than a queue has room for.
_SENDER = """
import socket, time
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x{proto:x})
sock.bind(("{ifname}", 0x{proto:x}))
sock.settimeout({timeout})
sock.setsockopt(socket.SOL_SOCKET, {rcvbufforce}, 1 << 24)
frame = bytes.fromhex("{dst}{src}{proto:04x}") + bytes(range(256))
frame = frame[:{size}].ljust({size}, b"x")
wanted = frame[6:12] + frame[:6] + frame[12:]
sent = back = 0
try:
    while sent < {count} or {reply} and back < sent:
        if sent < {count} and (sent - back < 64 or not {reply}):
            sock.send(frame)
            sent += 1
            if sent % 64 == 0 and not {reply}:
                time.sleep(0.05)
            continue
        data, address = sock.recvfrom(65536)
        if address[2] != socket.PACKET_OUTGOING and data == wanted:
            back += 1
except TimeoutError:
    pass
print(back)
"""


def _send(cfg, count=1, size=100, reply=False):
    """Have the far end send frames; returns how many came back to it, with
    the addresses swapped, if it has to wait for them."""
    script = _SENDER.format(proto=ETH_P_TEST, ifname=cfg.remote_ifname,
                            dst=_mac(_link(cfg)), src=_remote_mac(cfg),
                            count=count, size=size, reply=reply,
                            timeout=PATIENCE, rcvbufforce=_SO_RCVBUFFORCE)
    return int(cmd(f"python3 -c {shlex.quote(script)}", shell=True,
                   host=cfg.remote, timeout=3 * PATIENCE).stdout)


def _listen(ifname):
    """A socket that gets the frames of the test."""
    proto = socket.htons(ETH_P_TEST)
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, proto)
    defer(sock.close)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
    sock.bind((ifname, ETH_P_TEST))
    sock.settimeout(PATIENCE)
    return sock


def _mtu(cfg, mtu):
    ip(f"link set dev {cfg.remote_ifname} mtu {mtu}", host=cfg.remote)
    return cmd(f"ip link set dev {cfg.ifname} mtu {mtu}", fail=False)


def _keep_mtu(cfg):
    defer(_mtu, cfg, cfg.dev["mtu"])


@ksft_disruptive
def excludes_placement(cfg):
    """A program and the placement of payload cannot be on together."""
    was_on = _feature(cfg)
    defer(_feature, cfg, "on" if was_on else "off")
    path = _pin(_exit(PASS))
    if not _feature(cfg, "on"):
        raise KsftSkipEx("ulp-ddp cannot be switched on")
    _refused(_set_program(cfg, path, fail=False), "ulp-ddp")
    ksft_true("xdp" not in _link(cfg))

    ksft_eq(_feature(cfg, "off"), False)
    _set_program(cfg, path)
    defer(_detach, cfg)
    ksft_eq(_feature(cfg, "on"), False, "it stays off")
    ksft_true(_ping(cfg))
    _feature(cfg, "off")


@ksft_disruptive
def mtu_is_limited(cfg):
    """A packet has to fit a page while a program is attached, unless that can
    cope with fragments."""
    _without_ddp(cfg)
    _keep_mtu(cfg)
    highest = _link(cfg)["max_mtu"]
    path = _pin(_exit(PASS))
    _set_program(cfg, path)
    defer(_detach, cfg)
    limit = _link(cfg)["max_mtu"]
    ksft_gt(highest, limit)
    ksft_ge(limit, 3000)

    # Attached, the MTU changes up to the limit.
    ksft_eq(_mtu(cfg, limit).ret, 0)
    ksft_true(_ping(cfg, limit), "packets as long as can be")
    _refused(_mtu(cfg, limit + 1), "mtu greater than device maximum")
    ksft_eq(_link(cfg)["mtu"], limit)

    # Detached, everything is as before.
    _detach(cfg)
    ksft_eq(_link(cfg)["max_mtu"], highest)
    ksft_eq(_mtu(cfg, limit + 1).ret, 0)
    _refused(_set_program(cfg, path, fail=False), "MTU")
    ksft_true("xdp" not in _link(cfg))
    ksft_eq(_link(cfg)["max_mtu"], highest)
    ksft_true(_ping(cfg, limit + 1))

    ksft_eq(_mtu(cfg, limit).ret, 0)
    _set_program(cfg, path)
    ksft_true(_ping(cfg, limit))

    # Programs of both kinds take over from each other, as the MTU allows.
    _set_program(cfg, _pin(_exit(PASS), frags=True))
    ksft_eq(_link(cfg)["max_mtu"], highest)
    ksft_true(_ping(cfg, limit))
    for mtu in (limit + 1, 9000, highest):
        ksft_eq(_mtu(cfg, mtu).ret, 0)
        ksft_true(_ping(cfg, mtu))
    _refused(_set_program(cfg, path, fail=False), "MTU")
    ksft_eq(_link(cfg)["max_mtu"], highest)
    ksft_true(_ping(cfg, highest))
    ksft_eq(_mtu(cfg, limit).ret, 0)
    _set_program(cfg, path)
    ksft_eq(_link(cfg)["max_mtu"], limit)
    ksft_true(_ping(cfg, limit))


@ksft_disruptive
def sends_back(cfg):
    """Frames that a program sends back arrive, and are counted."""
    _without_ddp(cfg)
    _keep_mtu(cfg)
    _mtu(cfg, 9000)
    _attach(cfg, _program(_swap()), frags=True)
    before = _counters(cfg)
    # Many more than the queue has room for, and of any length.
    total = 0
    for size, count in ((60, 3000), (61, 10), (777, 500), (1514, 500),
                        (3520, 10), (3521, 10), (7617, 10), (9014, 1000)):
        ksft_eq(_send(cfg, count, size, reply=True), count)
        total += count
    after = _counters(cfg)
    for name in ("rx_xdp_tx_xmit", "tx_packets"):
        ksft_ge(after[name] - before[name], total, name)
    for name in ("rx_xdp_tx_full", "rx_xdp_tx_err", "tx_errors", "recover"):
        ksft_eq(after[name], before[name], name)
    ksft_true(_ping(cfg), "others pass")


@ksft_disruptive
def drops(cfg):
    """Frames that a program drops are counted; an unknown verdict drops."""
    _without_ddp(cfg)
    _keep_mtu(cfg)
    _mtu(cfg, 9000)
    for action in (DROP, ABORTED, 99):
        path = _pin(_program(_exit(action)), frags=True)
        _set_program(cfg, path)
        before = _counters(cfg)["rx_xdp_drop"]
        for size in (100, 9014):
            _send(cfg, 100, size)
        _wait_for(lambda goal=before + 200:
                  _counters(cfg)["rx_xdp_drop"] == goal)
    defer(_detach, cfg)
    ksft_true(_ping(cfg))


@ksft_variants([
    KsftNamedVariant("head_grows", -128, 0),
    KsftNamedVariant("head_grows_most", -216, 0),
    KsftNamedVariant("head_shrinks", 20, 0),
    KsftNamedVariant("tail_grows", 0, 512),
    KsftNamedVariant("tail_shrinks", 0, -20),
    KsftNamedVariant("both_grow", -64, 64),
    KsftNamedVariant("both_shrink", 32, -32),
    KsftNamedVariant("head_grows_before_fragments", -216, 0, 9014),
    KsftNamedVariant("head_shrinks_before_fragments", 20, 0, 9014),
    KsftNamedVariant("fragment_grows", 0, 2048, 9014),
    KsftNamedVariant("fragment_shrinks", 0, -20, 9014),
    KsftNamedVariant("fragment_goes", 0, -2000, 9014),
    KsftNamedVariant("fragments_go", 0, -5600, 9014),
])
@ksft_disruptive
def moves_start_and_end(cfg, head, tail, size=200):
    """What a program cuts off is gone, what it adds is there."""
    _without_ddp(cfg)
    _keep_mtu(cfg)
    _mtu(cfg, max(size, 1500 + ETH_HLEN) - ETH_HLEN)
    _attach(cfg, _program(_adjust(head, tail)), frags=True)
    sock = _listen(cfg.ifname)
    _send(cfg, 1, size)
    frame = sock.recv(65536)
    ksft_eq(len(frame), size - head + tail)
    # Bytes of the sent frame from its new start on, behind the new header.
    sent = (bytes(ETH_HLEN) + bytes(range(256))).ljust(size, b"x")
    start, end = max(head, 0) + ETH_HLEN, size + min(tail, 0)
    at = start - head
    ksft_eq(frame[at:at + end - start], sent[start:end])
    if tail > 0:
        ksft_eq(frame[-tail:], bytes(tail))


@ksft_disruptive
def redirects(cfg):
    """Frames arrive at the device where a program wants them."""
    _without_ddp(cfg)
    ip("link add xdpto0 type veth peer name xdpto1")
    defer(ip, "link del xdpto0")
    # The peer receives by NAPI, or there is no place to redirect to.
    cmd("ethtool -K xdpto1 gro on")
    for name in ("xdpto0", "xdpto1"):
        ip(f"link set dev {name} up")
    sock = _listen("xdpto1")
    target = ip("link show dev xdpto0", json=True)[0]["ifindex"]
    before = _counters(cfg)
    _attach(cfg, _program(_redirect(target)))
    count = 500
    _send(cfg, count)
    for _ in range(count):
        ksft_eq(len(sock.recv(65536)), 100)
    after = _counters(cfg)
    ksft_eq(after["rx_xdp_redirect"] - before["rx_xdp_redirect"], count)

    # The device is gone: dropped, and nothing else happens.
    path = _pin(_program(_redirect(0x7fffff00)))
    _set_program(cfg, path)
    _send(cfg, 100)
    goal = after["rx_xdp_drop"] + 100
    _wait_for(lambda: _counters(cfg)["rx_xdp_drop"] == goal)
    ksft_true(_ping(cfg))


def _pools(cfg):
    """The page pools that the device has now."""
    pools = cfg.netnl.page_pool_get({}, dump=True)
    return {pool["id"] for pool in pools
            if pool.get("ifindex") == cfg.ifindex
            and "detach-time" not in pool}


@ksft_disruptive
def replaced_in_place(cfg):
    """Another program does not make the queues anew; the first one does."""
    _without_ddp(cfg)
    without = _pools(cfg)
    paths = [_pin(_exit(PASS)), _pin(_program(_exit(DROP)))]
    _set_program(cfg, paths[0])
    defer(_detach, cfg)
    first = _pools(cfg)
    ksft_true(without and first and not without & first)
    _set_program(cfg, paths[1])
    ksft_eq(_pools(cfg), first)
    before = _counters(cfg)["rx_xdp_drop"]
    _send(cfg, 10)
    _wait_for(lambda: _counters(cfg)["rx_xdp_drop"] == before + 10)


@ksft_disruptive
def comes_and_goes_under_traffic(cfg):
    """Connections in both directions survive programs that come and go."""
    _without_ddp(cfg)
    paths = [_pin(_exit(PASS)), _pin(_program(_swap()))]
    errors = _errors(cfg)
    ports = [rand_port(), rand_port()]
    listen = f"socat -{cfg.addr_ipver} -u TCP-LISTEN:{{}},reuseport " \
        "OPEN:/dev/null"
    send = f"socat -{cfg.addr_ipver} -u OPEN:/dev/zero TCP:{{}}:{{}}"

    def data_flows(when):
        before = _counters(cfg)
        _wait_for(lambda: all(_counters(cfg)[name] - before[name] > 1 << 20
                              for name in ("rx_bytes", "tx_bytes")), when)

    with bkg(listen.format(ports[0])), \
         bkg(listen.format(ports[1]), host=cfg.remote):
        wait_port_listen(ports[0])
        wait_port_listen(ports[1], host=cfg.remote)
        with bkg(send.format(cfg.baddr, ports[0]), host=cfg.remote), \
             bkg(send.format(cfg.remote_baddr, ports[1])):
            data_flows("at the start")
            for _ in range(5):
                for path in paths:
                    _set_program(cfg, path)
                    data_flows("with a program")
                _detach(cfg)
                data_flows("without one")
    ksft_eq(_errors(cfg), errors)


@ksft_disruptive
def stays_attached(cfg):
    """Changes of the queues, and down and up, leave a program in force."""
    _without_ddp(cfg)
    _keep_mtu(cfg)
    _attach(cfg, _program(_swap()))
    name = cfg.ifname
    for change in (f"ethtool -L {name} combined 1",
                   f"ethtool -G {name} rx 128 tx 64",
                   f"ip link set dev {name} mtu 1400",
                   f"ip link set dev {name} mtu 1500",
                   f"ethtool -L {name} combined {{max}}",
                   f"ethtool -G {name} rx 1024 tx 1024",
                   f"ip link set dev {name} down"):
        most = cmd(f"ethtool -l {name}").stdout.split("Combined:")[1].split()[0]
        cmd(change.format(max=most))
        if change.endswith("down"):
            # A program can also come and go meanwhile.
            _detach(cfg)
            _set_program(cfg, _pin(_program(_swap())))
            ip(f"link set dev {name} up")
            cfg.wait_hw_stats_settle()
            _wait_for(lambda: _link(cfg)["operstate"] == "UP")
        ksft_eq(_send(cfg, 50, reply=True), 50, change)


@ksft_disruptive
def tagged_packets_pass(cfg):
    """VLAN tags arrive at the stack, taken out by the device or not."""
    _without_ddp(cfg)
    for name, host, addr in ((cfg.ifname, None, "198.51.100.1"),
                             (cfg.remote_ifname, cfg.remote, "198.51.100.2")):
        ip(f"link add link {name} name xdpvlan type vlan id 42", host=host)
        defer(ip, "link del xdpvlan", host=host)
        ip(f"addr add {addr}/24 dev xdpvlan", host=host)
        ip("link set dev xdpvlan up", host=host)
    _attach(cfg, _exit(PASS))
    defer(cmd, f"ethtool -K {cfg.ifname} rxvlan on")
    for strip in ("off", "on"):
        cmd(f"ethtool -K {cfg.ifname} rxvlan {strip}")
        _wait_for(lambda: cmd("ping -q -c 1 -W 1 198.51.100.2",
                              fail=False).ret == 0)


def unsupported_is_refused(cfg):
    """Nothing is promised that is not there."""
    features = cfg.netnl.dev_get({"ifindex": cfg.ifindex})["xdp-features"]
    ksft_eq(set(features), {"basic", "redirect", "rx-sg"})


def main():
    """Run the cases."""
    with NetDrvEpEnv(__file__, nsim_test=False) as cfg:
        if cmd(f"ethtool -i {cfg.ifname}").stdout.split()[1] != "mlx5_rs":
            raise KsftSkipEx("not a port of mlx5_rs")
        cfg.netnl = NetdevFamily()
        ksft_run([excludes_placement, mtu_is_limited, sends_back, drops,
                  moves_start_and_end, redirects, replaced_in_place,
                  comes_and_goes_under_traffic, stays_attached,
                  tagged_packets_pass, unsupported_is_refused], args=(cfg, ))
    ksft_exit()


if __name__ == "__main__":
    main()
