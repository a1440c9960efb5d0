# SPDX-License-Identifier: GPL-2.0
"""Results of KUnit and of kselftests as they come out of a VM."""

import unittest

import ktap

KUNIT = """
[    0.912345] KTAP version 1
[    0.912346] 1..2
[    0.912347]     KTAP version 1
[    0.912348]     # Subtest: rust_doctests_kernel
[    0.912349]     # speed: normal
[    0.912350]     1..2
[    0.912351]     ok 1 rust_doctest_kernel_alloc_0
[    0.912352]     not ok 2 rust_doctest_kernel_alloc_1
[    0.912353] # rust_doctests_kernel: pass:1 fail:1 skip:0 total:2
[    0.912354] not ok 1 rust_doctests_kernel
[    0.912355]     KTAP version 1
[    0.912356]     # Subtest: ulp_ddp
[    0.912357]     1..1
[    0.912358]     ok 1 resync # SKIP no memory
[    0.912359] ok 2 ulp_ddp
"""


class Ktap(unittest.TestCase):
    def test_leaves_are_counted_and_suites_are_not(self):
        results, problems = ktap.parse(KUNIT)
        self.assertEqual([r.name for r in results], ["rust_doctest_kernel_alloc_0", "rust_doctest_kernel_alloc_1", "resync"])
        self.assertEqual([r.good for r in results], [True, False, True])
        self.assertEqual([r.skipped for r in results], [False, False, True])
        self.assertEqual(problems, [])

    def test_a_suite_that_stops_early_is_a_problem(self):
        cut = KUNIT.replace("[    0.912352]     not ok 2 rust_doctest_kernel_alloc_1\n", "")
        self.assertEqual(ktap.parse(cut)[1], ["rust_doctests_kernel: 1 of 2 results"])

    def test_a_log_that_stops_is_a_problem(self):
        cut = KUNIT[: KUNIT.index("[    0.912355]")]
        self.assertEqual(ktap.parse(cut)[1], ["1 of 2 results"])

    def test_kselftest(self):
        results, problems = ktap.parse("TAP version 13\n1..2\nok 1 ddp.large.no_digest\nnot ok 2 ddp.balance # gone\n# Totals: pass:1\n")
        self.assertEqual([(r.name, r.good, r.comment) for r in results], [("ddp.large.no_digest", True, ""), ("ddp.balance", False, "gone")])
        self.assertEqual(problems, [])


if __name__ == "__main__":
    unittest.main()
