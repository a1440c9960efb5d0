# SPDX-License-Identifier: GPL-2.0
"""What is said about a VM that does not come to its end."""

import os
import unittest
from unittest import mock

import vm
from steps import Failure


def outcome(console, timed_out=False):
    return vm.Outcome(status=124, console=console, timed_out=timed_out, ended=False)


class Explain(unittest.TestCase):
    def test_hang(self):
        text = vm.explain(outcome("last words", timed_out=True), 30)
        self.assertIn("did not finish within 30 s", text)
        self.assertIn("last words", text)

    def test_panic(self):
        self.assertIn("panicked", vm.explain(outcome("[ 1.0] Kernel panic - not syncing: Oops"), 30))

    def test_the_target_ended(self):
        ended = outcome("initiator's words")
        ended.target_ended, ended.target_console = True, "[ 1.0] Kernel panic - not syncing: Oops"
        text = vm.explain(ended, 30)
        self.assertIn("The target VM kernel panicked, so the initiator was ended too", text.replace("VM's", "VM"))
        self.assertIn("initiator's words", text)

    def test_complaints(self):
        console = "[    1.5] WARNING: CPU: 0 PID: 1 at net/core/dev.c:1 x\n[    1.6] nvme nvme0: WARNING is a word\n[    2.0] BUG: sleeping function called\n"
        self.assertEqual(len(outcome(console).complaints()), 2)
        console = "[    1.1] DMA-API: debugging enabled by kernel config\n[    9.1] DMA-API: mlx5_rs 0000:00:06.0: device driver frees x\n"
        self.assertEqual(len(outcome(console).complaints()), 1)


class Variables(unittest.TestCase):
    def test_wrong_values_are_refused(self):
        for name in ("DRIVER", "HOST", "TOPO"):
            with self.subTest(name), mock.patch.dict(os.environ, {name: "nonsense"}), self.assertRaisesRegex(Failure, name):
                vm.topology()

    def test_a_fault_plan_that_is_not_there_is_named(self):
        with mock.patch.dict(os.environ, FAULTS="/nonexistent"), self.assertRaisesRegex(Failure, "FAULTS=/nonexistent"):
            vm.faults()

    def test_defaults(self):
        with mock.patch.dict(os.environ, clear=True):
            self.assertEqual(vm.topology(), {"DRIVER": "mlx5_rs", "HOST": "rs", "TOPO": "netns"})

    def test_two_vms_need_a_port(self):
        with mock.patch.dict(os.environ, TOPO="two", DRIVER="veth"), self.assertRaisesRegex(Failure, "TOPO"):
            vm.topology()


if __name__ == "__main__":
    unittest.main()
