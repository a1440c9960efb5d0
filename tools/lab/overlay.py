# SPDX-License-Identifier: GPL-2.0
"""The kernel tree: pinned source + patches/ + the overlay of this checkout.

Only files whose content changes are written, so that make rebuilds no more
than it has to.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from paths import BUILD, PRISTINE, REPO, TREE

OVERLAY_DIRS = ("rust", "drivers", "include", "net", "samples", "Documentation", "tools/testing")
MANIFEST = BUILD / "overlay.manifest"


def overlay_files():
    """Files of the checkout that belong into the kernel tree."""
    listing = subprocess.run(
        ["git", "-C", REPO, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *OVERLAY_DIRS],
        check=True, capture_output=True, text=True,
    ).stdout
    return [f for f in listing.split("\0") if f and Path(f).name != "Cargo.toml" and (REPO / f).exists()]


def patched_files(scratch):
    """Apply the series to copies of the files it touches; returns their names."""
    series = [line for line in (REPO / "patches/series").read_text().split("\n") if line and line[0] != "#"]
    touched = set()
    for name in series:
        patch = REPO / "patches" / name
        for line in patch.read_text().split("\n"):
            if not line.startswith("+++ b/"):
                continue
            path = line[6:].strip()
            if path not in touched:
                if not (PRISTINE / path).exists():
                    raise SystemExit(f"{name}: {path} is not in the pinned kernel; new files belong into the overlay")
                (scratch / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(PRISTINE / path, scratch / path)
                touched.add(path)
        result = subprocess.run(
            ["patch", "-p1", "--no-backup-if-mismatch", "-s", "-f", "-F0", "-d", scratch, "-i", patch],
            capture_output=True, text=True, check=False,
        )
        if result.returncode:
            raise SystemExit(f"patches/{name} does not apply to the pinned kernel:\n{result.stdout}{result.stderr}")
    return touched


def install(source, target):
    """Put a file into the tree if its content differs. Never writes through a hard link."""
    if target.exists() and target.read_bytes() == source.read_bytes():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".new")
    shutil.copyfile(source, temporary)
    shutil.copymode(source, temporary)
    os.replace(temporary, target)
    return True


def apply():
    """Bring the tree up to date; returns the number of files written."""
    if not TREE.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-al", PRISTINE, TREE.with_name("tree.new")], check=True)
        os.replace(TREE.with_name("tree.new"), TREE)
    before = set(MANIFEST.read_text().split("\n")) if MANIFEST.exists() else set()
    written = 0
    with tempfile.TemporaryDirectory() as tmp:
        scratch = Path(tmp)
        patched = patched_files(scratch)
        overlay = set(overlay_files())
        both = patched & overlay
        if both:
            raise SystemExit(f"in the overlay and in patches/ at once: {', '.join(sorted(both))}")
        MANIFEST.write_text("\n".join(sorted(before | patched | overlay)))
        for path in patched:
            written += install(scratch / path, TREE / path)
        for path in overlay:
            if (PRISTINE / path).exists():
                raise SystemExit(f"{path} exists in the pinned kernel; an edit to it belongs into patches/")
            written += install(REPO / path, TREE / path)
        for path in before - patched - overlay - {""}:
            if (PRISTINE / path).exists():
                written += install(PRISTINE / path, TREE / path)
            elif (TREE / path).exists():
                (TREE / path).unlink()
                written += 1
        MANIFEST.write_text("\n".join(sorted(patched | overlay)))
    return written
