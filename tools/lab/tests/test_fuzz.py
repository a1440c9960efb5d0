# SPDX-License-Identifier: GPL-2.0
"""What a fuzzer's output is taken for."""

import os
import unittest
from unittest import mock

import fuzz
from steps import Failure

GOOD = "#2\tINITED cov: 233 ft: 233\n#40\tDONE   cov: 1632 ft: 3831 corp: 571/7829b\nstat::number_of_executed_units: 40\n"
PANIC = """#2\tINITED cov: 233 ft: 233
thread '<unnamed>' panicked at tools/model/x.rs:1:2:
index out of bounds
==1== ERROR: libFuzzer: deadly signal
SUMMARY: libFuzzer: deadly signal
artifact_prefix='/kernel/fuzz/crashes/x-'; Test unit written to /kernel/fuzz/crashes/x-crash-1
stat::number_of_executed_units: 40
"""


class Judge(unittest.TestCase):
    def test_nothing_found(self):
        self.assertEqual(fuzz.judge(GOOD), (1632, None))

    def test_panic(self):
        covered, wrong = fuzz.judge(PANIC)
        self.assertEqual(covered, 233)
        self.assertIn("index out of bounds", wrong)
        self.assertIn("crash-1", wrong)

    def test_no_end(self):
        self.assertIsNotNone(fuzz.judge("Killed\n")[1])

    def test_timeout(self):
        self.assertIsNotNone(fuzz.judge("SUMMARY: libFuzzer: timeout\nstat::number_of_executed_units: 40\n")[1])


class Targets(unittest.TestCase):
    def test_unknown_names_are_refused(self):
        with mock.patch.dict(os.environ, FUZZ_TARGETS="nonsense"), self.assertRaisesRegex(Failure, "nonsense"):
            fuzz.targets()


if __name__ == "__main__":
    unittest.main()
