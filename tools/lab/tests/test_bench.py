# SPDX-License-Identifier: GPL-2.0
"""What the benchmark makes of its numbers."""

import os
import unittest
from unittest import mock

import bench
from steps import Failure


def result(repetition, driver, name, **values):
    return {"repetition": repetition, "driver": driver, "name": name, "vcpu": 1.0, "model": 0.5, "busy": 0.25, **values}


def measured(rates):
    """rates: (mlx5_core, mlx5_rs) by turn."""
    results = []
    for turn, both in enumerate(rates):
        for driver, rate in zip(bench.DRIVERS, both, strict=True):
            results.append(result(turn, driver, "TCP send", rate=rate, bytes=rate * 2**20))
            results.append(result(turn, driver, "UDP send", rate=rate, packets=rate))
            results.append(result(turn, driver, "TCP connect", rate=rate))
            results.append(result(turn, driver, "TCP latency", p50=rate, p99=2 * rate))
    return {"channels": 2, "repetitions": len(rates), "seconds": 1, "results": results}


class Report(unittest.TestCase):
    def setUp(self):
        self.measured = measured([(100, 110), (200, 200), (50, 40)])
        self.lines = {title: (unit, higher, by_driver) for title, unit, higher, by_driver in bench.lines(self.measured)}

    def test_ratios_are_of_turns_and_above_one_is_better(self):
        _, higher, by_driver = self.lines["TCP send"]
        self.assertEqual(bench.ratios(higher, by_driver), [1.1, 1.0, 0.8])
        _, higher, by_driver = self.lines["TCP latency, p50"]
        self.assertAlmostEqual(bench.ratios(higher, by_driver)[2], 1.25)

    def test_cpu_time_is_for_what_was_moved(self):
        unit, higher, by_driver = self.lines["TCP send: vCPU time"]
        self.assertEqual((unit, higher, by_driver["mlx5_core"][0]), ("ms/MiB", False, 10.0))
        self.assertEqual(self.lines["UDP send: vCPU time"][0], "us/packet")

    def test_every_line_is_in_text_and_plot(self):
        text, plot = bench.report(self.measured), bench.plot(self.measured)
        for title in self.lines:
            self.assertIn(title, text)
            self.assertIn(title, plot)
        # gnuplot takes it for a format.
        self.assertNotIn("%", plot)


class Interval(unittest.TestCase):
    def test_ranks_are_those_of_the_sign_test(self):
        # The tables of the binomial distribution: 6 of 6, 2nd to 8th of 9, 3rd to 10th of 12, 6th to 15th of 20.
        for number, ends in ((1, (1, 1)), (5, (1, 5)), (6, (1, 6)), (9, (2, 8)), (12, (3, 10)), (20, (6, 15))):
            self.assertEqual(bench.interval(reversed(range(1, number + 1))), ends)


class Meter(unittest.TestCase):
    def test_between(self):
        meter = bench.Meter()
        meter.samples[7, "@begin"] = {"time": 10.0, "initiator vcpu": 1.0, "model port0-nic": 2.0, "model port1-nic": 0.0}
        meter.samples[7, "@end"] = {"time": 14.0, "initiator vcpu": 4.0, "model port0-nic": 3.0, "model port1-nic": 0.5}
        self.assertEqual(meter.between(7), {"vcpu": 3.0, "model": 1.5, "busy": 0.25})

    def test_own_children_are_found(self):
        self.assertIn(os.getpid(), bench.descendants(os.getppid()))


class Plan(unittest.TestCase):
    def test_wrong_numbers_are_refused(self):
        with mock.patch.dict(os.environ, BENCH_SECONDS="0"), self.assertRaisesRegex(Failure, "BENCH_SECONDS"):
            bench.plan()


if __name__ == "__main__":
    unittest.main()
