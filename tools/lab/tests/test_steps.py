# SPDX-License-Identifier: GPL-2.0
"""A step that fails says one thing and where its log is."""

import io
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import steps


class Steps(unittest.TestCase):
    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        patcher = mock.patch.object(steps, "LOGS", Path(tmp.name))
        patcher.start()
        self.addCleanup(patcher.stop)
        self.logs = Path(tmp.name)
        self.runner = steps.Runner(1)
        self.runner.out = io.StringIO()

    def say(self, step, text):
        return step.capture(lambda **pipes: subprocess.Popen([sys.executable, "-c", f"print({text!r})"], **pipes))

    def test_output_goes_to_the_log(self):
        with self.runner.step("a step") as step:
            self.assertEqual(self.say(step, "hello"), 0)
        self.assertEqual((self.logs / "a-step.log").read_text(), "hello\n")
        self.assertIn("[1/1] a step ...", self.runner.out.getvalue())

    def test_failure_names_the_log(self):
        with self.assertRaisesRegex(steps.Failure, "(?s)It broke.*a-step.log"), self.runner.step("a step") as step:
            self.say(step, "hello")
            raise steps.Failure("It broke.")
        self.assertIn("FAILED", self.runner.out.getvalue())

    def test_full_disk_is_recognised(self):
        with self.assertRaisesRegex(steps.Failure, "ran full"), self.runner.step("a step") as step:
            self.say(step, "cc: No space left on device")
            raise steps.Failure("It broke.")

    def test_space_is_asked_for_before_the_start(self):
        with self.assertRaisesRegex(steps.Failure, "needs 1000000000 GB"):
            steps.need_space(1000000000, "The moon", self.logs)

    def test_up_to_date_is_said(self):
        with self.runner.step("a step") as step:
            step.up_to_date()
        self.assertIn("up to date", self.runner.out.getvalue())


if __name__ == "__main__":
    unittest.main()
