#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0

"""
Control plane of the ULP direct data placement offload: the netlink family
ulp-ddp and the feature flag.
"""

import errno
import os

from lib.py import KsftSkipEx, NetDrvEnv, NetNS, NetNSEnter, NlError
from lib.py import defer, ethtool
from lib.py import ksft_disruptive, ksft_eq, ksft_exit, ksft_in
from lib.py import ksft_raises, ksft_run, ksft_true
from net.lib.py.ynl import SPEC_PATH, YnlFamily

FEATURE = "ulp-ddp"
CAPS = ["nvme-tcp", "nvme-tcp-ddgst-rx"]
COUNTERS = ["sk-add", "sk-add-fail", "sk-del", "setup", "setup-fail",
            "teardown", "drop", "resync", "packets", "bytes"]


class UlpDdpFamily(YnlFamily):
    """The netlink family, by its specification."""
    def __init__(self):
        super().__init__((SPEC_PATH / "ulp_ddp.yaml").as_posix(), schema='')


def _caps(cfg):
    """Capabilities of the device; skips if it has none."""
    try:
        caps = cfg.family.caps_get({"ifindex": cfg.ifindex})
    except NlError as e:
        if e.error == errno.EOPNOTSUPP:
            raise KsftSkipEx("the device does not support ULP DDP") from e
        raise
    if not caps["hw"]:
        raise KsftSkipEx("the device has no ULP DDP capabilities")
    return caps


def _set_caps(cfg, wanted, mask=None):
    return cfg.family.caps_set({"ifindex": cfg.ifindex, "wanted": wanted,
                                "wanted-mask": CAPS if mask is None else mask})


def _keep(cfg):
    """Restores the capabilities after the test; returns those there are."""
    caps = _caps(cfg)
    defer(_set_caps, cfg, caps["active"])
    return caps


def _feature(cfg, name=FEATURE):
    return ethtool(f"-k {cfg.ifname}", json=True)[0][name]


def _set_feature(cfg, on, name=FEATURE):
    ethtool(f"-K {cfg.ifname} {name} {'on' if on else 'off'}")


def _expect(error, func, *args):
    with ksft_raises(NlError) as cm:
        func(*args)
    if cm.exception:
        ksft_eq(cm.exception.error, error)


def caps_get(cfg):
    """What is active is a part of what the device can do."""
    caps = _caps(cfg)
    ksft_eq(caps["ifindex"], cfg.ifindex)
    for cap in caps["active"]:
        ksft_in(cap, caps["hw"])


@ksft_disruptive
def caps_set(cfg):
    """Each set of capabilities can be made active, or is refused whole."""
    hw = _keep(cfg)["hw"]
    for wanted in (set(), {CAPS[0]}, set(CAPS), {CAPS[1]}, set()):
        before = _caps(cfg)["active"]
        try:
            reply = _set_caps(cfg, wanted)
        except NlError:
            ksft_eq(_caps(cfg)["active"], before, "a refusal changes nothing")
            continue
        ksft_eq(reply["active"], wanted & hw)
        ksft_eq(_caps(cfg)["active"], wanted & hw)


@ksft_disruptive
def caps_mask(cfg):
    """Bits outside of the mask stay as they are."""
    hw = _keep(cfg)["hw"]
    _set_caps(cfg, hw)
    ksft_eq(_set_caps(cfg, set(), set())["active"], hw)
    ksft_eq(_set_caps(cfg, hw, set())["active"], hw)
    _set_caps(cfg, set())
    ksft_eq(_set_caps(cfg, hw, set())["active"], set())


@ksft_disruptive
def feature_follows_caps(cfg):
    """The feature flag is on while anything is active."""
    hw = _keep(cfg)["hw"]
    _set_caps(cfg, set())
    ksft_eq(_feature(cfg)["active"], False)
    _set_caps(cfg, hw)
    ksft_eq(_feature(cfg)["active"], True)
    _set_caps(cfg, set())
    ksft_eq(_feature(cfg)["active"], False)


@ksft_disruptive
def caps_follow_feature(cfg):
    """The feature flag switches all capabilities."""
    hw = _keep(cfg)["hw"]
    _set_feature(cfg, False)
    ksft_eq(_caps(cfg)["active"], set())
    _set_feature(cfg, True)
    ksft_eq(_caps(cfg)["active"], hw)
    _set_feature(cfg, False)
    ksft_eq(_caps(cfg)["active"], set())


@ksft_disruptive
def needs_rx_checksum(cfg):
    """Without the receive checksum nothing can be active."""
    hw = _keep(cfg)["hw"]
    # ethtool has names of its own for rx-checksum.
    rxcsum = "rx"
    state = _feature(cfg, "rx-checksumming")
    if state["fixed"]:
        raise KsftSkipEx("the receive checksum cannot be switched")
    _set_feature(cfg, True, rxcsum)
    defer(_set_feature, cfg, state["active"], rxcsum)
    _set_caps(cfg, hw)
    _set_feature(cfg, False, rxcsum)
    ksft_eq(_caps(cfg)["active"], set())
    ksft_eq(_feature(cfg)["active"], False)
    _expect(errno.EINVAL, _set_caps, cfg, hw)
    ksft_eq(_caps(cfg)["active"], set())
    _set_feature(cfg, True, rxcsum)
    ksft_eq(_set_caps(cfg, hw)["active"], hw)


def _next_active(cfg, listener):
    for ntf in listener.poll_ntf(duration=5):
        if ntf["name"] == "caps-set-ntf" and \
           ntf["msg"]["ifindex"] == cfg.ifindex:
            return ntf["msg"]["active"]
    return None


@ksft_disruptive
def notifications(cfg):
    """Changes are announced, whichever way they were made, and only those."""
    hw = _keep(cfg)["hw"]
    _set_caps(cfg, set())
    listener = UlpDdpFamily()
    listener.ntf_subscribe("mgmt")
    # Of two requests one changes something.
    _set_caps(cfg, set())
    _set_caps(cfg, hw)
    ksft_eq(_next_active(cfg, listener), hw)
    _set_feature(cfg, False)
    ksft_eq(_next_active(cfg, listener), set())


def _as_nobody(func):
    """The errno of what func raises when nobody runs it, 0 if nothing."""
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            os.setgroups([])
            os.setuid(65534)
            func()
            status = 0
        except NlError as e:
            status = e.error
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@ksft_disruptive
def unprivileged(cfg):
    """Everybody can look, only administrators can change."""
    caps = _keep(cfg)

    def read():
        UlpDdpFamily().caps_get({"ifindex": cfg.ifindex})
        UlpDdpFamily().stats_get({"ifindex": cfg.ifindex})

    def change():
        UlpDdpFamily().caps_set({"ifindex": cfg.ifindex,
                                 "wanted": set(), "wanted-mask": CAPS})

    _set_caps(cfg, caps["hw"])
    ksft_eq(_as_nobody(read), 0)
    ksft_eq(_as_nobody(change), errno.EPERM)
    ksft_eq(_caps(cfg)["active"], caps["hw"])


def bad_requests(cfg):
    """Requests that miss something or name the wrong device."""
    family = cfg.family
    _caps(cfg)
    _expect(errno.EINVAL, family.caps_get, {})
    _expect(errno.EINVAL, family.stats_get, {})
    _expect(errno.EINVAL, family.caps_set,
            {"ifindex": cfg.ifindex, "wanted": CAPS})
    _expect(errno.EINVAL, family.caps_set,
            {"ifindex": cfg.ifindex, "wanted-mask": CAPS})
    for ifindex in (0x7fffffff, 0xffffffff):
        _expect(errno.ENODEV, family.caps_get, {"ifindex": ifindex})
        _expect(errno.ENODEV, family.stats_get, {"ifindex": ifindex})
    loopback = {"ifindex": 1}
    _expect(errno.EOPNOTSUPP, family.caps_get, loopback)
    _expect(errno.EOPNOTSUPP, family.stats_get, loopback)
    _expect(errno.EOPNOTSUPP, family.caps_set,
            loopback | {"wanted": CAPS, "wanted-mask": CAPS})


def other_namespace(cfg):
    """A device is seen in its own network namespace only."""
    _caps(cfg)
    with NetNS() as netns, NetNSEnter(str(netns)):
        family = UlpDdpFamily()
        _expect(errno.ENODEV, family.caps_get, {"ifindex": cfg.ifindex})


def stats_get(cfg):
    """All counters are there, and sockets and buffers balance."""
    _caps(cfg)
    stats = cfg.family.stats_get({"ifindex": cfg.ifindex})
    for name in COUNTERS:
        ksft_in(f"rx-nvme-tcp-{name}", stats)
    ksft_true(stats["rx-nvme-tcp-sk-add"] >= stats["rx-nvme-tcp-sk-del"])
    ksft_true(stats["rx-nvme-tcp-setup"] >= stats["rx-nvme-tcp-teardown"])


def main() -> None:
    """Ksft boilerplate"""
    with NetDrvEnv(__file__) as cfg:
        cfg.family = UlpDdpFamily()
        ksft_run([caps_get, caps_set, caps_mask, feature_follows_caps,
                  caps_follow_feature, needs_rx_checksum, notifications,
                  unprivileged, bad_requests, other_namespace, stats_get],
                 args=(cfg, ))
    ksft_exit()


if __name__ == "__main__":
    main()
