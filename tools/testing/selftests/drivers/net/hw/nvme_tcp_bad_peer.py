#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0

"""
An NVMe/TCP host whose controller breaks the rules of the protocol.

A proxy between the host and a real target changes, repeats or invents PDUs.
Whatever comes, the host has to end the connection, make a new one and finish
its I/O with the right data. Needs a target whose namespace 1 may be
overwritten, see nvme_tcp_ddp_lib.py.
"""

import os
import socket
import struct
import time
from pathlib import Path
from threading import Event, Lock, Thread

from lib.py import KsftNamedVariant, NetDrvEpEnv
from lib.py import cmd
from lib.py import ksft_disruptive, ksft_eq, ksft_exit, ksft_run, ksft_variants
from nvme_tcp_ddp_lib import Connection, Readers

# PDU types
C2H_TERM, COMMAND, RESPONSE, C2H_DATA, R2T = 3, 4, 5, 7, 9
# Opcode and type of a command that writes a property of the controller
FABRICS, PROPERTY_SET = 0x7f, 0
# NVME_AQ_BLK_MQ_DEPTH, the command identifier of asynchronous events
EVENT_CID = 31
NOBODY = 0xff0


def _exactly(sock, size):
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


def _response(cid):
    return struct.pack("<BBBBI8xHHHH", RESPONSE, 0, 24, 0, 24, 0, 0, cid, 0)


class Queue:
    """One connection through the proxy."""
    def __init__(self, proxy, host, index):
        self.proxy = proxy
        self.index = index
        self.host = host
        self.target = socket.create_connection(proxy.target)
        self.lock = Lock()
        for pump in (self._to_target, self._to_host):
            Thread(target=self._run, args=(pump,), daemon=True).start()

    def _run(self, pump):
        try:
            pump()
        except OSError:
            pass
        for sock in (self.host, self.target):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _to_target(self):
        while data := self.host.recv(1 << 16):
            if self.proxy.delay and data[0] == COMMAND and data[8] == FABRICS and data[12] == PROPERTY_SET:
                time.sleep(self.proxy.delay)
            self.target.sendall(data)

    def _to_host(self):
        while True:
            header = _exactly(self.target, 8)
            size = struct.unpack_from("<I", header, 4)[0]
            pdu = header + _exactly(self.target, size - 8)
            self.send(self.proxy.bend(self.index, pdu))

    def send(self, data):
        """Whole PDUs to the host."""
        with self.lock:
            self.host.sendall(data)


class Proxy:
    """Where the host connects to instead of the target."""
    def __init__(self):
        family = socket.AF_INET
        self.target = (os.environ["NVME_TRADDR"], os.environ["NVME_TRSVCID"])
        self.listener = socket.create_server(("127.0.0.1", 0), family=family)
        self.port = self.listener.getsockname()[1]
        self.queues = []
        self.change = None
        self.changed = Event()
        # Seconds that a Property Set takes.
        self.delay = 0
        Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                host = self.listener.accept()[0]
            except OSError:
                return
            self.queues.append(Queue(self, host, len(self.queues)))

    def __enter__(self):
        return self

    def __exit__(self, ex_type, ex_value, ex_tb):
        self.listener.close()

    def bend(self, index, pdu):
        """What the host gets for a PDU: the next one of the wanted type is changed."""
        if self.change and index and self.change[0] == pdu[0]:
            pdu = self.change[1](pdu)
            self.change = None
            self.changed.set()
        return pdu


def _patched(pdu, offset, layout, value):
    data = bytearray(pdu)
    struct.pack_into(layout, data, offset, value)
    return bytes(data)


# Of an I/O queue: the type of the PDU that is changed, and how.
_changes = {
    "unknown_type": (RESPONSE, lambda p: _patched(p, 0, "B", 0x42)),
    "header_length": (RESPONSE, lambda p: _patched(p, 2, "B", 23)),
    "pdu_length": (C2H_DATA, lambda p: _patched(p, 4, "<I", 8)),
    "digest_flags": (C2H_DATA, lambda p: _patched(p, 1, "B", p[1] | 2)),
    "unknown_command": (RESPONSE, lambda p: _patched(p, 20, "<H", NOBODY)),
    "response_twice": (RESPONSE, lambda p: p + p),
    "termination": (RESPONSE, lambda p: struct.pack("<BBBBIHI10x", C2H_TERM, 0, 24, 0, 24, 1, 0)),
    "data_of_nobody": (C2H_DATA, lambda p: _patched(p, 8, "<H", NOBODY)),
    "data_elsewhere": (C2H_DATA, lambda p: _patched(p, 12, "<I", 512)),
    "data_twice": (C2H_DATA, lambda p: p + p),
    "no_data": (C2H_DATA, lambda p: _response(struct.unpack_from("<H", p, 8)[0])),
    "r2t_twice": (R2T, lambda p: p + p),
    "r2t_elsewhere": (R2T, lambda p: _patched(p, 12, "<I", 4096)),
    "r2t_too_long": (R2T, lambda p: _patched(p, 16, "<I", 1 << 30)),
    "r2t_of_nobody": (R2T, lambda p: _patched(p, 8, "<H", NOBODY)),
}

# Sent on the admin queue, out of the blue.
_inventions = {
    "events": _response(EVENT_CID) * 3,
    "response": _response(NOBODY),
    "r2t": struct.pack("<BBBBIHHII4x", R2T, 0, 24, 0, 24, EVENT_CID, 1, 0, 512),
}


def _recovered(connection):
    return connection.reconnections() and connection.attribute("state") == "live"


@ksft_variants([KsftNamedVariant(name, name) for name in _changes])
@ksft_disruptive
def changed(_cfg, name):
    """A PDU of an I/O queue is not what it should be."""
    with Proxy() as proxy, \
         Connection(extra="--reconnect-delay=1", at=("127.0.0.1", proxy.port)) as connection, \
         Readers(connection.disk(), block="64k", size="2M", rw="randrw") as readers:
        proxy.change = _changes[name]
        readers.wait_for(proxy.changed.is_set, "a PDU to change")
        readers.wait_for(lambda: _recovered(connection), "a new connection")


@ksft_variants([KsftNamedVariant(name, name) for name in _inventions])
@ksft_disruptive
def invented(_cfg, name):
    """A PDU comes on the admin queue that belongs to nothing."""
    with Proxy() as proxy, \
         Connection(extra="--reconnect-delay=1", at=("127.0.0.1", proxy.port)) as connection, \
         Readers(connection.disk(), block="64k", size="2M") as readers:
        proxy.queues[0].send(_inventions[name])
        readers.wait_for(lambda: _recovered(connection), "a new connection")


class KernelLog:
    """What the kernel says about NVMe from now on."""
    def __init__(self):
        self.mark = f"nvme_tcp_bad_peer {time.monotonic_ns()}"
        Path("/dev/kmsg").write_text(self.mark + "\n", encoding="ascii")

    def count(self, text):
        """Lines with this text."""
        lines = cmd("dmesg").stdout.partition(self.mark)[2].splitlines()
        return sum(text in line for line in lines)


@ksft_disruptive
def slow_shutdown(_cfg):
    """It is time for a keep-alive while a controller takes long to shut down."""
    log = KernelLog()
    with Proxy() as proxy, \
         Connection(extra="--keep-alive-tmo=2", at=("127.0.0.1", proxy.port)) as connection:
        connection.disk()
        proxy.delay = 1.5
    ksft_eq(log.count("keepalive") + log.count("keep_alive"), 0, "complaints")


@ksft_disruptive
def reset_is_no_error(_cfg):
    """A reset on request is not reported as a broken connection."""
    log = KernelLog()
    with Proxy() as proxy, \
         Connection(at=("127.0.0.1", proxy.port)) as connection, \
         Readers(connection.disk(), block="64k", size="2M", rw="randrw") as readers:
        for _ in range(5):
            cmd(f"nvme reset /dev/{connection.name}")
            readers.wait_for(lambda: connection.attribute("state") == "live", "a reset")
    ksft_eq(log.count("failed to send") + log.count("failed to receive"), 0, "errors")
    ksft_eq(log.count("error recovery"), 0, "recoveries")


def main() -> None:
    """ Ksft boilerplate main """
    with NetDrvEpEnv(__file__, nsim_test=False) as cfg:
        ksft_run([changed, invented, slow_shutdown, reset_is_no_error],
                 args=(cfg, ))
    ksft_exit()


if __name__ == "__main__":
    main()
