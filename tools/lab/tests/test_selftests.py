# SPDX-License-Identifier: GPL-2.0
"""The selftests' results are read as they are, kept, and compared."""

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import selftests
import vm
from selftests import Case, Record
from steps import Failure

OUTPUT = """TAP version 13
1..5
ok 1 queues.get_queues
# Check| At queues.py, line 1, in addremove_queues:
# Check failed 3 != 4 queues
not ok 2 queues.addremove_queues
# Exception| Traceback (most recent call last):
# Exception| net.lib.py.utils.CmdExitFailure: Command failed
# Exception| CMD: /opt/gro
# Exception|   STDERR: /opt/gro: too few frames
# Exception|
not ok 3 queues.check_down
ok 4 queues.check_xsk # XFAIL Device does not support it
# Exception| Traceback (most recent call last):
# Exception| KeyError: 'x'
# Exception|
not ok 5 queues.check_more
"""


def ended(console=""):
    return vm.Outcome(status=0, console=console)


class Cases(unittest.TestCase):
    def test_each_outcome_has_its_reason(self):
        results = selftests.cases("queues", ended(), OUTPUT, [])
        self.assertEqual(results["get_queues"], Case("pass"))
        self.assertEqual(results["addremove_queues"], Case("fail", "Check failed 3 != 4 queues"))
        self.assertEqual(results["check_down"], Case("fail", "gro: too few frames"))
        self.assertEqual(results["check_more"], Case("fail", "KeyError: 'x'"))
        self.assertEqual(results["check_xsk"], Case("skip", "Device does not support it"))

    def test_a_test_that_stops_early_has_failed(self):
        results = selftests.cases("queues", ended(), "\n".join(OUTPUT.split("\n")[:3]), [])
        self.assertEqual(results["end of the test"].outcome, "fail")

    def test_a_vm_that_stops_has_failed(self):
        outcome = vm.Outcome(status=124, console="[ 1.0] Kernel panic - not syncing: Oops", timed_out=True, ended=False)
        self.assertIn("Kernel panic", selftests.cases("queues", outcome, OUTPUT, [])["end of the test"].reason)

    def test_a_complaint_of_the_kernel_is_a_failure(self):
        self.assertEqual(selftests.cases("queues", ended(), OUTPUT, ["BUG: x"])["kernel log"], Case("fail", "BUG: x"))


class Tables(unittest.TestCase):
    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.directory = Path(tmp.name)

    def record(self, **runs):
        record = Record(self.directory)
        for driver, results in runs.items():
            record.update(driver, "queues", results)
        record.write()
        return Record(self.directory)

    def test_what_is_written_is_read(self):
        record = self.record(mlx5_core={"a": Case("pass"), "b c": Case("fail", "why")}, mlx5_rs={"a": Case("skip", "not yet"), "b c": Case("pass")})
        for driver, outcomes in (("mlx5_core", ("pass", "fail")), ("mlx5_rs", ("skip", "pass"))):
            self.assertEqual(tuple(record.outcome("queues", name, driver) for name in ("a", "b c")), outcomes)
        self.assertIsNone(record.outcome("stats", "a", "mlx5_rs"))

    def test_a_reason_stays_where_a_test_gives_none(self):
        self.record(mlx5_core={"a": Case("skip", "no such counter")})
        record = self.record(mlx5_core={"a": Case("skip")}, mlx5_rs={"a": Case("skip")})
        self.assertEqual(record.row("queues", "a")[3], "no such counter")

    def test_many_cases_make_one_row(self):
        many = {f"{what}hw_{number}": Case("skip", "no device") for what in ("", "x_") for number in range(9)}
        record = self.record(mlx5_core={"sw": Case("pass"), "x_sw": Case("pass"), **many})
        self.assertEqual([row[1] for row in record.rows], [["hw_*", "x_hw_*"]])
        self.assertEqual(record.outcome("queues", "hw_3", "mlx5_core"), "skip")
        self.assertEqual(record.outcome("queues", "sw", "mlx5_core"), "pass")

    def test_a_run_that_ended_early_forgets_nothing(self):
        record = self.record(mlx5_core={"a": Case("pass"), "b": Case("skip", "x")}, mlx5_rs={"end of the test": Case("fail", "hang")})
        self.assertEqual(record.outcome("queues", "b", "mlx5_core"), "skip")

    def test_a_person_s_reason_stays(self):
        self.record(mlx5_core={"a": Case("fail", "Check failed")})
        path = self.directory / Record.CASES
        path.write_text(path.read_text().replace("Check failed", "the model has no such table"))
        record = self.record(mlx5_core={"a": Case("fail", "Check failed")})
        self.assertEqual(record.row("queues", "a")[3], "the model has no such table")

    def test_what_does_worse_than_recorded_is_named(self):
        record = self.record(mlx5_core={"a": Case("fail", "why"), "b": Case("pass"), "c": Case("skip", "x")})
        results = {"a": Case("fail", "why"), "b": Case("skip", "why"), "c": Case("skip", "x")}
        self.assertEqual(record.worse("mlx5_core", "queues", results), {"b": "skip, was pass: why"})
        self.assertEqual(list(record.worse("mlx5_core", "queues", {"c": Case("fail", "why")})), ["c"])
        # What was never run has nothing to be compared with but success.
        self.assertEqual(list(record.worse("mlx5_rs", "queues", {"a": Case("fail", "why"), "b": Case("pass")})), ["a"])

    def test_ours_has_to_pass_what_the_other_passes(self):
        record = self.record(mlx5_core={"a": Case("pass"), "b": Case("skip", "x")}, mlx5_rs={"a": Case("skip", "not yet"), "b": Case("skip", "x")})
        results = {"a": Case("skip", "not yet"), "b": Case("skip", "x")}
        self.assertEqual(list(record.behind("mlx5_rs", "queues", results)), ["a"])
        self.assertEqual(record.behind("mlx5_core", "queues", results), {})


class Variables(unittest.TestCase):
    def test_wrong_values_are_refused(self):
        for name, function in (("TESTS", selftests.selected), ("DRIVER", selftests.drivers)):
            with self.subTest(name), mock.patch.dict(os.environ, {name: "nonsense"}), self.assertRaisesRegex(Failure, name):
                function()


if __name__ == "__main__":
    unittest.main()
