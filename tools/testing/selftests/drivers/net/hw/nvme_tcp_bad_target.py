#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0

"""
An NVMe/TCP target that refuses, closes, says nothing sensible or stops in the
middle: connecting fails with an error, in finite time, and leaves no
controller behind.
"""

import glob
from pathlib import Path

from lib.py import KsftNamedVariant, NetDrvEpEnv
from lib.py import bkg, cmd, defer, rand_port, wait_port_listen
from lib.py import ksft_eq, ksft_exit, ksft_ne, ksft_run, ksft_variants

# Seconds that the host waits for the answer to an admin command.
ADMIN_TIMEOUT = Path("/sys/module/nvme_core/parameters/admin_timeout")

SUBNQN = "nqn.2026-11.test.ulp-ddp:nobody"

# Says something to everybody who has sent a request, then closes.
SERVER = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True:
    peer, _ = server.accept()
    with peer:
        peer.recv(128, socket.MSG_WAITALL)
        peer.sendall(bytes.fromhex(sys.argv[3]))
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(4096):
            pass
"""


def _pdu(kind, flags=0, hlen=128, pdo=0, plen=128):
    """A PDU of the size that plen says, with nothing but its header."""
    head = bytes([kind, flags, hlen, pdo]) + plen.to_bytes(4, "little")
    return head + bytes(max(0, min(plen, 4096) - len(head)))


_ICRESP = 0x01

_answers = [
    KsftNamedVariant("nothing", b""),
    KsftNamedVariant("half_a_header", b"\x01\x00\x80"),
    KsftNamedVariant("noise", bytes(range(256)) * 16),
    KsftNamedVariant("zeros", bytes(4096)),
    KsftNamedVariant("other_pdu", _pdu(0x07, hlen=24, plen=24)),
    KsftNamedVariant("short_length", _pdu(_ICRESP, plen=7)),
    KsftNamedVariant("huge_length", _pdu(_ICRESP, plen=0xffffffff)),
    KsftNamedVariant("wrong_version",
                     _pdu(_ICRESP)[:8] + b"\xff\xff" + bytes(118)),
    KsftNamedVariant("digests_not_asked_for",
                     _pdu(_ICRESP)[:8] + b"\0\0\0\x03" + bytes(116)),
    KsftNamedVariant("good_then_closes",
                     _pdu(_ICRESP)[:12] + (1 << 16).to_bytes(4, "little")
                     + bytes(112)),
    KsftNamedVariant("good_then_noise",
                     _pdu(_ICRESP)[:12] + (1 << 16).to_bytes(4, "little")
                     + bytes(112) + b"\xff" * 4096),
]


def _controllers():
    return set(glob.glob("/sys/class/nvme/nvme*"))


def _connect_fails(cfg, port):
    # Somebody who closes after a good start is only noticed by that.
    defer(ADMIN_TIMEOUT.write_text, ADMIN_TIMEOUT.read_text())
    ADMIN_TIMEOUT.write_text("3")
    before = _controllers()
    result = cmd(f"nvme connect -t tcp -a {cfg.remote_addr_v['4']} -s {port} "
                 f"-n {SUBNQN}", fail=False, timeout=60)
    ksft_ne(result.ret, 0, "connected to nobody")
    ksft_ne(result.stderr.strip(), "", "no error message")
    ksft_eq(_controllers(), before, "controllers left behind")


def refused(cfg):
    """Nobody listens."""
    cfg.require_ipver("4")
    _connect_fails(cfg, rand_port())


@ksft_variants(_answers)
def answers(cfg, answer):
    """Somebody answers, but not as a target does."""
    cfg.require_ipver("4")
    port = rand_port()
    server = (f"exec python3 -c '{SERVER}' {cfg.remote_addr_v['4']} {port} "
              f"'{answer.hex()}'")
    with bkg(server, host=cfg.remote):
        wait_port_listen(port, host=cfg.remote)
        _connect_fails(cfg, port)


def main() -> None:
    """ Ksft boilerplate main """
    with NetDrvEpEnv(__file__, nsim_test=False) as cfg:
        ksft_run([refused, answers], args=(cfg, ))
    ksft_exit()


if __name__ == "__main__":
    main()
