# SPDX-License-Identifier: GPL-2.0
"""The kernel tree: pinned source + patches/ + the overlay of this checkout.

Only files whose content changes are written, so that make rebuilds no more
than it has to.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import toolroot
from paths import BUILD, OBJ, PRISTINE, REPO, TREE
from source import STAMP
from steps import Failure

OVERLAY_DIRS = ("rust", "drivers", "include", "net", "samples", "Documentation", "tools/testing")
MANIFEST = BUILD / "overlay.manifest"


def tracked(*patterns):
    """Files of the checkout that git has, or would have."""
    listing = subprocess.run(
        ["git", "-C", REPO, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        check=False, capture_output=True, text=True,
    )
    if listing.returncode:
        raise Failure(f"git cannot tell which files {REPO} has: {listing.stderr.strip()}")
    return sorted(name for name in listing.stdout.split("\0") if name and (REPO / name).is_file())


def overlay_files():
    """Files of the checkout that belong into the kernel tree."""
    return [name for name in tracked(*OVERLAY_DIRS) if Path(name).name not in ("Cargo.toml", "Cargo.lock")]


def series():
    """The patches, in the order in which they are applied."""
    lines = (REPO / "patches/series").read_text().split("\n")
    return [line.strip() for line in lines if line.strip() and line[0] != "#"]


def patched_files(scratch):
    """Apply the series to copies of the files it touches; returns their names."""
    touched = set()
    for name in series():
        patch = REPO / "patches" / name
        if not patch.exists():
            raise Failure(f"patches/series names {name}, which does not exist.")
        for line in patch.read_text().split("\n"):
            if not line.startswith("+++ b/"):
                continue
            path = line[6:].strip()
            if path not in touched:
                if not (PRISTINE / path).exists():
                    raise Failure(f"patches/{name}: {path} is not in the pinned kernel; a new file belongs into the overlay.")
                (scratch / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(PRISTINE / path, scratch / path)
                touched.add(path)
        result = subprocess.run(
            ["patch", "-p1", "--no-backup-if-mismatch", "-s", "-f", "-F0", "-d", scratch, "-i", patch],
            capture_output=True, text=True, check=False,
        )
        if result.returncode:
            raise Failure(f"patches/{name} does not apply to the kernel source; rework it:\n{result.stdout}{result.stderr}".rstrip())
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


def populate(tree):
    """A copy of the pinned source made of hard links; install() never writes through them."""
    fresh = tree.with_name(tree.name + ".new")
    if fresh.exists():
        shutil.rmtree(fresh)
    fresh.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-al", PRISTINE, fresh], check=True)
    os.replace(fresh, tree)


def stamp(tree):
    """The version that a tree was unpacked from, if it is one."""
    path = tree / STAMP
    return path.read_text() if path.exists() else None


def apply(tree=TREE, manifest=MANIFEST):
    """Bring the tree up to date; returns the number of files written."""
    if not tree.exists() or stamp(tree) != stamp(PRISTINE):
        # Times of another source say nothing about the age of its objects.
        manifest.unlink(missing_ok=True)
        if tree == TREE:
            for stale in (OBJ, BUILD / "clippy"):
                toolroot.remove(stale)
        if tree.exists():
            shutil.rmtree(tree)
        populate(tree)
    before = set(manifest.read_text().split("\n")) if manifest.exists() else set()
    written = 0
    with tempfile.TemporaryDirectory() as tmp:
        scratch = Path(tmp)
        patched = patched_files(scratch)
        overlay = set(overlay_files())
        both = patched & overlay
        if both:
            raise Failure(f"In the overlay and in patches/ at once: {', '.join(sorted(both))}.")
        for path in overlay:
            if (PRISTINE / path).exists():
                raise Failure(f"{path} exists in the pinned kernel; an edit to it belongs into patches/.")
        manifest.write_text("\n".join(sorted(before | patched | overlay)))
        for path in patched:
            written += install(scratch / path, tree / path)
        for path in overlay:
            written += install(REPO / path, tree / path)
        for path in before - patched - overlay - {""}:
            if (PRISTINE / path).exists():
                written += install(PRISTINE / path, tree / path)
            elif (tree / path).exists():
                (tree / path).unlink()
                written += 1
        manifest.write_text("\n".join(sorted(patched | overlay)))
    return written


def ours():
    """Paths in the tree that differ from the pinned source, by the manifest."""
    return [path for path in MANIFEST.read_text().split("\n") if path]


def digest(paths):
    """One checksum over files of the tree."""
    result = hashlib.sha256()
    for path in paths:
        result.update(path.encode() + b"\0" + (TREE / path).read_bytes())
    return result.hexdigest()


def update(step):
    written = apply()
    if written:
        step.note = f"{written} files written"
    else:
        step.up_to_date()
