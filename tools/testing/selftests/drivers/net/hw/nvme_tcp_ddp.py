#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0

"""
NVMe/TCP with direct data placement by the NIC.

Needs a NIC with the feature ulp-ddp and a target whose namespace 1 may be
overwritten, see nvme_tcp_ddp_lib.py.
"""

from pathlib import Path

from lib.py import EthtoolFamily, KsftNamedVariant, KsftSkipEx, NetDrvEpEnv
from lib.py import NetdevFamily, NlError
from lib.py import defer, ethtool, ip
from lib.py import ksft_disruptive, ksft_eq, ksft_exit, ksft_ge, ksft_gt
from lib.py import ksft_run, ksft_variants
from nvme_tcp_ddp_lib import Connection, Counters, Readers, UlpDdpFamily
from nvme_tcp_ddp_lib import fio, offload_is_on, set_offload

# Share of the payload of large reads that must be placed.
PLACED_SHARE = 0.9

# The target must not give up while a device is away.
PATIENCE = "--keep-alive-tmo=60"

_digests = [
    KsftNamedVariant("no_digest", False, False),
    KsftNamedVariant("hdr_digest", True, False),
    KsftNamedVariant("data_digest", False, True),
    KsftNamedVariant("both_digests", True, True),
]


def _switch(cfg, enabled):
    before = offload_is_on(cfg.ifname)
    set_offload(cfg.ifname, enabled)
    defer(set_offload, cfg.ifname, before)
    ksft_eq(offload_is_on(cfg.ifname), enabled)


def _verified_io(cfg, hdr, data, block, size="16M"):
    """Write, read back and verify; returns what the counters moved by."""
    with Connection(hdr, data) as connection:
        disk = connection.disk()
        before = Counters(cfg.ifindex)
        fio(disk, "randwrite", block, size, verify="crc32c")
        moved = Counters(cfg.ifindex) - before
    return moved


@ksft_variants(_digests)
@ksft_disruptive
def large_reads_placed(cfg, hdr, data):
    """Payload of large reads is placed by the NIC and is right."""
    _switch(cfg, True)
    moved = _verified_io(cfg, hdr, data, "128k")
    ksft_ge(moved["read_bytes_large"], 16 << 20, "large reads counted")
    ksft_ge(moved["placed_bytes_large"],
            PLACED_SHARE * moved["read_bytes_large"], "placed")
    ksft_gt(moved["rx-nvme-tcp-bytes"], 0, "placed, as the NIC counts")
    if data:
        ksft_gt(moved["ddgst_nic"], 0, "digests the NIC vouched for")
    else:
        ksft_eq(moved["ddgst_nic"] + moved["ddgst_sw"], 0, "digests")


@ksft_variants(_digests)
@ksft_disruptive
def off_places_nothing(cfg, hdr, data):
    """With the feature off not one byte is placed and all data is right."""
    _switch(cfg, False)
    moved = _verified_io(cfg, hdr, data, "128k")
    ksft_eq(moved["bytes_placed"], 0, "placed")
    ksft_eq(moved["ddgst_nic"], 0, "digests the NIC vouched for")
    ksft_ge(moved["bytes_copied"], 16 << 20, "copied")
    ksft_eq(moved.get("rx-nvme-tcp-sk-add", 0), 0, "offloaded sockets")


@ksft_variants(_digests[::3])
@ksft_disruptive
def mixed_sizes(cfg, hdr, data):
    """Reads below and above the placement threshold, side by side."""
    _switch(cfg, True)
    moved = _verified_io(cfg, hdr, data, "4k-256k", size="32M")
    ksft_gt(moved["bytes_placed"], 0, "placed")
    ksft_ge(moved["bytes_placed"] + moved["bytes_copied"], 32 << 20, "read")


@ksft_disruptive
def balance(cfg):
    """What was set up is taken down: sockets and I/O buffers."""
    _switch(cfg, True)
    before = Counters(cfg.ifindex)
    _verified_io(cfg, False, False, "64k")
    moved = Counters(cfg.ifindex) - before
    ksft_gt(moved["rx-nvme-tcp-sk-add"], 0, "sockets offloaded")
    ksft_eq(moved["rx-nvme-tcp-sk-add"], moved["rx-nvme-tcp-sk-del"], "sockets")
    ksft_gt(moved["rx-nvme-tcp-setup"], 0, "buffers set up")
    ksft_eq(moved["rx-nvme-tcp-setup"], moved["rx-nvme-tcp-teardown"], "buffers")


def _combined(cfg):
    """Number of channels; skips if they cannot be told apart."""
    query = {"header": {"dev-index": cfg.ifindex}}
    count = EthtoolFamily().channels_get(query)["combined-count"]
    if count < 2:
        raise KsftSkipEx(f"{cfg.ifname} has {count} channel")
    return count


def _received(cfg):
    """Bytes that each receive queue has received."""
    stats = NetdevFamily().qstats_get({"ifindex": cfg.ifindex, "scope": {"queue"}},
                                      dump=True)
    return {queue["queue-id"]: queue["rx-bytes"] for queue in stats
            if queue["queue-type"] == "rx"}


@ksft_disruptive
def every_channel(cfg):
    """Two controllers at once, with a connection for each channel."""
    _switch(cfg, True)
    channels = _combined(cfg)
    many = f"--nr-io-queues={channels} --duplicate-connect"
    part = 8 << 20
    with Connection(data_digest=True, extra=many) as one, \
         Connection(hdr_digest=True, extra=many) as other, \
         Readers(one.disk()):
        before, received = Counters(cfg.ifindex), _received(cfg)
        # Behind what the readers read: it is the same namespace.
        fio(other.disk(), "write", "128k", part, verify="crc32c",
            extra=f"--offset={part} --offset_increment={part} --numjobs={channels} "
                  f"--cpus_allowed=0-{channels - 1} --cpus_allowed_policy=split")
        moved = Counters(cfg.ifindex) - before
        ksft_ge(moved["read_bytes_large"], part * channels, "large reads")
        ksft_ge(moved["placed_bytes_large"],
                PLACED_SHARE * moved["read_bytes_large"], "placed")
        for queue, count in _received(cfg).items():
            ksft_ge(count - received[queue], part, f"bytes of channel {queue}")


# What takes flows down. Each generator yields when the device works again.

def _link(cfg):
    ip(f"link set dev {cfg.ifname} down")
    ip(f"link set dev {cfg.ifname} up")
    yield


def _mtu(cfg):
    before = cfg.dev["mtu"]
    # With a smaller one, what the peer sends would be too long.
    for mtu in (before + 200, before):
        ip(f"link set dev {cfg.ifname} mtu {mtu}")
        yield


def _rings(cfg):
    before = ethtool(f"-g {cfg.ifname}", json=True)[0]
    for size in (before["rx"] // 2, before["rx"]):
        ethtool(f"-G {cfg.ifname} rx {size}")
        yield


def _channels(cfg):
    before = _combined(cfg)
    for count in (before - 1, before):
        ethtool(f"-L {cfg.ifname} combined {count}")
        yield


@ksft_variants([
    KsftNamedVariant("link", _link),
    KsftNamedVariant("mtu", _mtu),
    KsftNamedVariant("rings", _rings),
    KsftNamedVariant("channels", _channels),
])
@ksft_disruptive
def flows_come_back(cfg, change):
    """Sockets leave a device that changes and return, under verified reads."""
    _switch(cfg, True)
    with Connection(data_digest=True, extra=PATIENCE) as connection, \
         Readers(connection.disk()) as readers:
        before = Counters(cfg.ifindex)

        def moved(name):
            return (Counters(cfg.ifindex) - before)[name] > 0

        for _ in change(cfg):
            readers.wait_for(lambda: moved("rx-nvme-tcp-sk-del"), "flows end")
            readers.wait_for(lambda: moved("rx-nvme-tcp-sk-add"), "new flows")
            before = Counters(cfg.ifindex)
            readers.wait_for(lambda: moved("rx-nvme-tcp-bytes"), "placement")
            readers.wait_for(lambda: moved("ddgst_nic"), "digests by the NIC")
            before = Counters(cfg.ifindex)
        ksft_eq(connection.reconnections(), 0, "reconnections")


@ksft_disruptive
def device_returns(cfg):
    """The driver is unbound and bound again, under verified reads."""
    _switch(cfg, True)
    device = Path(f"/sys/class/net/{cfg.ifname}/device").resolve()
    driver = (device / "driver").resolve()
    addresses = [f"{info['local']}/{info['prefixlen']}"
                 for info in ip(f"addr show dev {cfg.ifname}", json=True)[0]["addr_info"]
                 if info["scope"] == "global"]
    with Connection(data_digest=True, extra=PATIENCE) as connection, \
         Readers(connection.disk()) as readers:
        (driver / "unbind").write_text(device.name, encoding="ascii")
        (driver / "bind").write_text(device.name, encoding="ascii")
        cfg.ifindex = ip(f"link show dev {cfg.ifname}", json=True)[0]["ifindex"]
        ip(f"link set dev {cfg.ifname} mtu {cfg.dev['mtu']} up")
        for address in addresses:
            extra = "nodad" if ":" in address else ""
            ip(f"addr add {address} dev {cfg.ifname} {extra}")
        # The flow may be there before this could look again.
        before = Counters(cfg.ifindex)
        set_offload(cfg.ifname, True)

        def moved(name):
            return (Counters(cfg.ifindex) - before)[name] > 0

        readers.wait_for(lambda: moved("rx-nvme-tcp-sk-add"), "new flows")
        readers.wait_for(lambda: moved("rx-nvme-tcp-bytes"), "placement")
        readers.wait_for(lambda: moved("ddgst_nic"), "digests by the NIC")
        ksft_eq(connection.reconnections(), 0, "reconnections")


@ksft_disruptive
def feature_off_and_on(cfg):
    """The offload is switched off and on under verified reads."""
    _switch(cfg, True)
    with Connection(data_digest=True, extra=PATIENCE) as connection, \
         Readers(connection.disk()) as readers:
        before = Counters(cfg.ifindex)

        def moved(name):
            return (Counters(cfg.ifindex) - before)[name]

        for _ in range(3):
            set_offload(cfg.ifname, False)
            # Some reads were under way.
            for _ in range(2):
                before = Counters(cfg.ifindex)
                readers.wait_for(lambda: moved("bytes_copied") > 8 << 20, "reads")
            ksft_eq(moved("rx-nvme-tcp-setup"), 0, "buffers set up")
            ksft_eq(moved("bytes_placed"), 0, "placed")
            set_offload(cfg.ifname, True)
            before = Counters(cfg.ifindex)
            readers.wait_for(lambda: moved("rx-nvme-tcp-bytes") > 0, "placement")
        ksft_eq(connection.reconnections(), 0, "reconnections")


@ksft_disruptive
def caps_follow_feature(cfg):
    """The netlink capabilities and the ethtool feature are one state."""
    _switch(cfg, True)
    family = UlpDdpFamily()
    caps = family.caps_get({"ifindex": cfg.ifindex})
    ksft_eq(caps["active"], caps["hw"], "all on")
    defer(set_offload, cfg.ifname, True)
    family.caps_set({"ifindex": cfg.ifindex, "wanted": set(),
                     "wanted-mask": caps["hw"]})
    ksft_eq(offload_is_on(cfg.ifname), False, "feature after caps-set to none")
    family.caps_set({"ifindex": cfg.ifindex, "wanted": caps["hw"],
                     "wanted-mask": caps["hw"]})
    ksft_eq(offload_is_on(cfg.ifname), True, "feature after caps-set to all")


def caps_of_loopback(_cfg):
    """A device without the offload has an error, not capabilities."""
    try:
        UlpDdpFamily().caps_get({"ifindex": 1})
    except NlError:
        return
    raise AssertionError("caps-get of lo succeeded")


def main() -> None:
    """ Ksft boilerplate main """
    with NetDrvEpEnv(__file__, nsim_test=False) as cfg:
        ksft_run([large_reads_placed, off_places_nothing, mixed_sizes,
                  balance, every_channel, flows_come_back, device_returns, feature_off_and_on,
                  caps_follow_feature, caps_of_loopback],
                 args=(cfg, ))
    ksft_exit()


if __name__ == "__main__":
    main()
