# SPDX-License-Identifier: GPL-2.0
"""The demo's rule: what passes and what does not."""

import unittest

import demo

MIB = 1 << 20


def one_pass(offload, digests=False, **changes):
    placed = 300 * MIB if offload else 0
    moved = {
        "bytes_placed": placed, "bytes_copied": 320 * MIB - placed, "ddgst_nic": 9 if offload and digests else 0, "ddgst_sw": 1 if digests else 0,
        "read_bytes_large": 310 * MIB, "placed_bytes_large": placed, "rx-nvme-tcp-bytes": placed,
    }
    good = changes.pop("good", True)
    moved.update(changes)
    return {"digests": digests, "offload": offload, "good": good, "files_seconds": 1.0, "seconds": 2.0, "moved": moved}


class Verdict(unittest.TestCase):
    def test_a_good_run_passes(self):
        passes = [one_pass(offload, digests) for digests in (False, True) for offload in (True, False)]
        self.assertEqual(demo.verdict(passes), [])

    def test_each_condition_fails_alone(self):
        for bad in (
            one_pass(True, good=False),
            one_pass(True, placed_bytes_large=270 * MIB),
            one_pass(True, read_bytes_large=MIB, placed_bytes_large=MIB),
            one_pass(True, digests=True, ddgst_nic=0),
            one_pass(False, bytes_placed=1),
            one_pass(False, **{"rx-nvme-tcp-bytes": 1}),
        ):
            with self.subTest(bad):
                self.assertEqual(len(demo.verdict([bad])), 1)

    def test_exactly_ninety_percent_is_enough(self):
        self.assertEqual(demo.verdict([one_pass(True, placed_bytes_large=279 * MIB)]), [])


if __name__ == "__main__":
    unittest.main()
