# SPDX-License-Identifier: GPL-2.0
"""The kernel tree is made right, or one sentence says why it cannot be."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

import overlay
from steps import Failure

PATCH = "--- a/net/Makefile\n+++ b/net/Makefile\n@@ -1,2 +1,3 @@\n obj-y := a.o\n+obj-y += ours.o\n obj-y += b.o\n"


class Overlay(unittest.TestCase):
    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory()
        self.addCleanup(self.tmp.cleanup)
        base = Path(self.tmp.name)
        self.pristine, self.repo, self.tree = base / "pristine", base / "repo", base / "tree"
        self.write(self.pristine / "net/Makefile", "obj-y := a.o\nobj-y += b.o\n")
        self.write(self.repo / "patches/series", "0001-net.patch\n")
        self.write(self.repo / "patches/0001-net.patch", PATCH)
        self.write(self.repo / "net/ours.c", "int ours;\n")
        self.files = ["net/ours.c"]
        for name, value in (("PRISTINE", self.pristine), ("REPO", self.repo), ("overlay_files", lambda: self.files)):
            patcher = mock.patch.object(overlay, name, value)
            patcher.start()
            self.addCleanup(patcher.stop)

    def write(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def apply(self):
        return overlay.apply(self.tree, self.tree.with_name("manifest"))

    def test_patches_and_files_arrive_and_the_source_stays_as_it_is(self):
        self.assertEqual(self.apply(), 2)
        self.assertIn("ours.o", (self.tree / "net/Makefile").read_text())
        self.assertEqual((self.tree / "net/ours.c").read_text(), "int ours;\n")
        self.assertNotIn("ours.o", (self.pristine / "net/Makefile").read_text())
        self.assertEqual(self.apply(), 0)

    def test_what_is_taken_away_leaves_the_tree(self):
        self.apply()
        self.files = []
        self.write(self.repo / "patches/series", "# none\n")
        self.assertEqual(self.apply(), 2)
        self.assertFalse((self.tree / "net/ours.c").exists())
        self.assertNotIn("ours.o", (self.tree / "net/Makefile").read_text())

    def test_another_source_makes_another_tree(self):
        self.write(self.pristine / overlay.STAMP, "1")
        self.apply()
        # The unpacked source is replaced as a whole: no file of it is written to.
        (self.pristine / overlay.STAMP).unlink()
        self.write(self.pristine / overlay.STAMP, "2")
        self.write(self.pristine / "net/new.c", "")
        self.assertEqual(self.apply(), 2)
        self.assertTrue((self.tree / "net/new.c").exists())

    def test_a_patch_that_does_not_apply_is_named(self):
        self.write(self.pristine / "net/Makefile", "obj-y := c.o\n")
        with self.assertRaisesRegex(Failure, "0001-net.patch does not apply"):
            self.apply()

    def test_an_overlay_file_must_be_new(self):
        self.write(self.pristine / "net/ours.c", "int theirs;\n")
        with self.assertRaisesRegex(Failure, "net/ours.c exists in the pinned kernel"):
            self.apply()


if __name__ == "__main__":
    unittest.main()
