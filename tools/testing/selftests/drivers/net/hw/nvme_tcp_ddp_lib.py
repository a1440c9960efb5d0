# SPDX-License-Identifier: GPL-2.0

"""
Connect to an NVMe/TCP target behind the tested NIC and count what was
placed by the NIC and what was copied by the CPU.

The target is given by NVME_TRADDR, NVME_TRSVCID and NVME_SUBNQN beside the
usual variables of the drivers/net tests.
"""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from lib.py import cmd, ethtool
from lib.py import KsftFailEx, KsftSkipEx, NlError
from net.lib.py.ynl import SPEC_PATH, YnlFamily

HOST_COUNTERS = Path("/sys/kernel/debug/nvme_tcp/rx")
FEATURE = "ulp-ddp"


class UlpDdpFamily(YnlFamily):
    """The netlink family of the offload, by its specification."""
    def __init__(self):
        super().__init__((SPEC_PATH / "ulp_ddp.yaml").as_posix(), schema='')


def set_offload(ifname, enabled):
    """Switch the offload of a NIC with ethtool, as a user does."""
    ethtool(f"-K {ifname} {FEATURE} {'on' if enabled else 'off'}")


def offload_is_on(ifname):
    """The state of the feature; skips on a NIC that does not have it."""
    feature = ethtool(f"-k {ifname}", json=True)[0].get(FEATURE)
    if feature is None:
        raise KsftSkipEx(f"no feature {FEATURE} in this ethtool or kernel")
    if feature["fixed"] and not feature["active"]:
        raise KsftSkipEx(f"{ifname} has no {FEATURE}")
    return feature["active"]


class Counters:
    """Counters of the host (debugfs) and of the NIC (netlink) at one time."""
    def __init__(self, ifindex):
        try:
            text = HOST_COUNTERS.read_text(encoding="ascii")
        except FileNotFoundError as e:
            raise KsftSkipEx(f"the nvme-tcp module has no {HOST_COUNTERS}") from e
        lines = (line.split() for line in text.splitlines() if line)
        self.values = {name: int(value) for name, value in lines}
        try:
            stats = UlpDdpFamily().stats_get({"ifindex": ifindex})
        except NlError:
            # A NIC without the offload has no such counters.
            stats = {}
        self.values.update((name, value) for name, value in stats.items()
                           if name != "ifindex")

    def __sub__(self, before):
        return {name: value - before.values.get(name, 0)
                for name, value in self.values.items()}


class Connection:
    """A connected controller; disconnects when left."""
    def __init__(self, hdr_digest=False, data_digest=False, extra="", at=None):
        missing = [name for name in ("NVME_TRADDR", "NVME_TRSVCID", "NVME_SUBNQN")
                   if name not in os.environ]
        if missing:
            raise KsftSkipEx("no NVMe/TCP target given: " + " ".join(missing))
        self.subnqn = os.environ["NVME_SUBNQN"]
        address, port = at or (os.environ["NVME_TRADDR"], os.environ["NVME_TRSVCID"])
        self.command = f"nvme connect -t tcp -a {address} -s {port} -n {self.subnqn}"
        if hdr_digest:
            self.command += " --hdr-digest"
        if data_digest:
            self.command += " --data-digest"
        if extra:
            self.command += " " + extra
        self.name = None

    def __enter__(self):
        result = cmd(self.command + " -o json", timeout=60)
        self.name = json.loads(result.stdout)["device"]
        return self

    def __exit__(self, ex_type, ex_value, ex_tb):
        cmd(f"nvme disconnect -d {self.name}", timeout=60)

    def disk(self, number=1, deadline=20):
        """The block device of a namespace, once the controller was scanned."""
        path = Path(f"/dev/{self.name}n{number}")
        end = time.monotonic() + deadline
        while not path.is_block_device():
            if time.monotonic() > end:
                raise KsftFailEx(f"{path} did not appear")
            time.sleep(0.05)
        return path


    def attribute(self, name):
        """An attribute of the controller in sysfs."""
        path = Path(f"/sys/class/nvme/{self.name}/{name}")
        return path.read_text(encoding="ascii").strip()

    def reconnections(self):
        """How often the connections were made anew."""
        return int(self.attribute("diag/reconnect_count"))


class Readers:
    """Verified I/O over and over while the block below runs."""
    def __init__(self, path, block="128k", size="8M", rw="randread"):
        self.job = (path, block, size)
        self.rw = rw
        self.stop = Event()
        self.pool = ThreadPoolExecutor(1)
        self.running = None

    def _read(self):
        path, block, size = self.job
        while not self.stop.is_set():
            fio(path, self.rw, block, size, verify="crc32c",
                extra="--verify_header_seed=0")

    def __enter__(self):
        path, block, size = self.job
        fio(path, "write", block, size, verify="crc32c", extra="--do_verify=0")
        self.running = self.pool.submit(self._read)
        return self

    def wait_for(self, condition, what, deadline=60):
        """Until the condition holds; fails when a reader does."""
        end = time.monotonic() + deadline
        while not condition():
            if self.running.done():
                self.running.result()
            if time.monotonic() > end:
                raise KsftFailEx(f"waited {deadline} s in vain for: {what}")
            time.sleep(0.05)

    def __exit__(self, ex_type, ex_value, ex_tb):
        self.stop.set()
        self.pool.shutdown()
        if ex_type is None:
            self.running.result()


def fio(path, rw, block, size, verify=None, extra=""):
    """Direct I/O with fio; returns its report, fails on any error."""
    line = (f"fio --name=ddp --filename={path} --rw={rw} --size={size} "
            f"--direct=1 --ioengine=libaio --iodepth=16 --output-format=json "
            f"--randseed=1 --thread ")
    line += f"--bsrange={block} " if "-" in block else f"--bs={block} "
    if verify:
        line += f"--verify={verify} --verify_fatal=1 "
    result = cmd(line + extra, fail=False, timeout=600)
    if result.ret:
        raise KsftFailEx(f"{line}{extra}: status {result.ret}\n{result.stderr}")
    return json.loads(result.stdout[result.stdout.index("{"):])["jobs"][0]


def drop_caches():
    """Make the next buffered reads come from the device."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
