# SPDX-License-Identifier: GPL-2.0
"""What can go wrong while things are set up: one clear sentence, nothing half-made."""

import os
import shutil
import subprocess
import tempfile
import unittest
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import kernel
import model
import source
import steps
import toolroot
import vm
from steps import Failure, Step

BOOTSTRAP = Path(__file__).resolve().parents[1] / "bootstrap"


class Cache(unittest.TestCase):
    """A cache directory of its own."""

    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.cache = Path(tmp.name)
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        for module in (toolroot, source):
            self.patch(module, "CACHE", self.cache)
            self.patch(module, "ROOT", self.cache / "root")
        self.patch(steps, "LOGS", self.cache / "logs")

    def patch(self, target, name, value):
        return self.stack.enter_context(mock.patch.object(target, name, value))


class ToolRoot(Cache):
    def make(self, output, status=1, devices=""):
        """create() with a mmdebstrap that says this."""
        step = Step("tool root")

        def capture(_start, on_line=None):
            (self.cache / "root.new").mkdir()
            step.path.parent.mkdir(exist_ok=True)
            step.path.write_text(output)
            return status

        def run(argv, **_):
            if "rm" in argv:
                shutil.rmtree(argv[-1], ignore_errors=True)
            return subprocess.CompletedProcess(argv, 0, devices, "")

        self.patch(step, "capture", capture)
        self.patch(toolroot.subprocess, "run", run)
        self.patch(toolroot, "need_space", lambda *_: None)
        self.patch(toolroot, "is_current", lambda: False)
        toolroot.create(step)

    def check(self, sentence, output, **more):
        with self.assertRaisesRegex(Failure, sentence):
            self.make(output, **more)
        self.assertFalse((self.cache / "root").exists())
        self.assertFalse((self.cache / "root.new").exists())

    def test_no_such_mirror(self):
        self.check("mirror cannot be reached.*check the network", "E: Could not resolve 'mirror'")

    def test_no_connection(self):
        self.check("mirror cannot be reached.*proxy", "E: Could not connect to mirror:80")

    def test_full_disk(self):
        self.check("disk ran full: make room", "dpkg: error: No space left on device")

    def test_kernel_package_gone(self):
        self.check("move kernel.pin", f"E: Unable to locate package {toolroot.KERNEL_SOURCE}")

    def test_qemu_without_vfio_user(self):
        self.check("no vfio-user-pci.*QEMU 10.1", "", status=0, devices='name "virtio-net-pci"')

    def test_a_user_without_namespaces_is_told_what_to_do(self):
        refused = subprocess.CompletedProcess([], 1, "", "unshare: unshare failed: Operation not permitted")
        self.patch(toolroot.subprocess, "run", lambda *_, **__: refused)
        for uid, what in ((1000, "uidmap"), (0, "CAP_SYS_ADMIN")):
            with self.subTest(uid), mock.patch.object(os, "geteuid", lambda uid=uid: uid), self.assertRaisesRegex(Failure, what):
                toolroot.check_namespace()


class KernelSource(Cache):
    def setUp(self):
        super().setUp()
        self.patch(source, "PRISTINE", self.cache / "pristine")
        self.patch(source, "pin", lambda: {"package": "linux-source-7.3", "version": "7.3.4-1", "sha256": "0" * 64})
        self.offer("7.3.4-1")
        archive = self.cache / "root/usr/src/linux-source-7.3.tar.xz"
        archive.parent.mkdir(parents=True)
        archive.write_bytes(b"source")

    def offer(self, version):
        status = self.cache / "root/var/lib/dpkg/status"
        status.parent.mkdir(parents=True, exist_ok=True)
        status.write_text(f"Package: linux-source-7.3\nVersion: {version}\n")

    def test_another_checksum_is_refused(self):
        with self.assertRaisesRegex(Failure, "does not have the checksum in kernel.pin"):
            source.unpack(Step("kernel source"))
        self.assertFalse((self.cache / "pristine").exists())

    def test_a_kernel_that_moved_is_named_and_used(self):
        self.offer("7.3.5-1")
        step = Step("kernel source")
        self.patch(step, "capture", lambda _start: 0)
        source.unpack(step)
        self.assertIn("only offers 7.3.5-1", step.note)
        self.assertEqual((self.cache / "pristine" / source.STAMP).read_text(), "7.3.5-1")

    def test_a_source_that_does_not_unpack_is_not_used(self):
        self.offer("7.3.5-1")
        step = Step("kernel source")
        self.patch(step, "capture", lambda _start: 2)
        with self.assertRaisesRegex(Failure, "could not be unpacked"):
            source.unpack(step)
        self.assertFalse((self.cache / "pristine").exists())


class DeviceModel(Cache):
    def test_no_registry(self):
        step = Step("device model")
        step.path.parent.mkdir(exist_ok=True)
        step.path.write_text("error: failed to download `libc`")
        self.patch(step, "capture", lambda *_: 101)
        with self.assertRaisesRegex(Failure, "cargo cannot reach the crate registry: check the network"):
            model.build(step)


class Machine(unittest.TestCase):
    def test_nothing_built(self):
        with mock.patch.object(kernel, "IMAGE", Path("/nonexistent")), self.assertRaisesRegex(Failure, "run make kernel"):
            vm.boot(vm.Guest())

    def test_no_kvm(self):
        with mock.patch.dict(os.environ, ACCEL="kvm"), mock.patch.object(os, "access", lambda *_: False), self.assertRaisesRegex(Failure, "leave ACCEL out"):
            vm.accelerator()

    def test_tools_that_cannot_be_installed_are_named(self):
        # A machine with nothing but a shell and what it takes to look around.
        with tempfile.TemporaryDirectory() as tools:
            for name in ("bash", "id", "uname"):
                os.symlink(shutil.which(name), f"{tools}/{name}")
            result = subprocess.run([f"{tools}/bash", BOOTSTRAP], env={"PATH": tools}, capture_output=True, text=True, check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertRegex(result.stderr, "Install these packages first.*mmdebstrap")
        self.assertEqual(len(result.stderr.strip().split("\n")), 1)


if __name__ == "__main__":
    unittest.main()
