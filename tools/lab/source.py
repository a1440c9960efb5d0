# SPDX-License-Identifier: GPL-2.0
"""The pinned kernel source, verified and unpacked."""

import hashlib
import os
import subprocess

import toolroot
from paths import CACHE, PRISTINE, REPO, ROOT
from steps import Failure, need_space

STAMP = ".ulp-ddp-source"


def pin():
    lines = (REPO / "kernel.pin").read_text().split("\n")
    return dict(map(str.strip, line.split("=", 1)) for line in lines if line and line[0] != "#")


def tarball(wanted):
    return ROOT / "usr/src" / f"{wanted['package']}.tar.xz"


def checksum(path):
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def offered(wanted):
    """The version of the source package in the tool root."""
    status = (ROOT / "var/lib/dpkg/status").read_text()
    for paragraph in status.split("\n\n"):
        if paragraph.startswith(f"Package: {wanted['package']}\n"):
            return next(line[9:] for line in paragraph.split("\n") if line.startswith("Version: "))
    raise Failure(f"The tool root has no package {wanted['package']}: kernel.pin and tools/lab/toolroot.py disagree.")


def unpack(step):
    """Put the verified source into the cache; under a temporary name until it is complete."""
    wanted = pin()
    version = offered(wanted)
    if version != wanted["version"]:
        step.note = (
            f"kernel.pin wants {wanted['package']} {wanted['version']}, the mirror only offers {version}: "
            "building with that one, as far as the patches apply."
        )
    stamp = PRISTINE / STAMP
    if stamp.exists() and stamp.read_text() == version:
        step.up_to_date()
        return
    with toolroot.locked("pristine"):
        archive = tarball(wanted)
        if version == wanted["version"] and checksum(archive) != wanted["sha256"]:
            raise Failure(f"{archive.name} of {wanted['package']} {version} does not have the checksum in kernel.pin: do not trust this mirror.")
        need_space(2, "The kernel source")
        fresh = CACHE / "pristine.new"
        toolroot.remove(fresh)
        fresh.mkdir()
        relative = archive.relative_to(ROOT)
        status = step.capture(
            lambda **pipes: toolroot.start(f"tar -C /mnt --strip-components=1 --no-same-owner -xf /{relative}", [(fresh, "/mnt")], **pipes)
        )
        if status:
            raise Failure("The kernel source could not be unpacked.")
        (fresh / STAMP).write_text(version)
        if PRISTINE.exists():
            os.rename(PRISTINE, CACHE / "pristine.old")
        os.rename(fresh, PRISTINE)
        toolroot.remove(CACHE / "pristine.old")


def differences():
    """Lines of tar that say where the unpacked source differs from its archive."""
    relative = tarball(pin()).relative_to(ROOT)
    # The archive's own top directory has no name once it is stripped.
    result = toolroot.run(
        f"tar -C /mnt --strip-components=1 --compare -f /{relative} 2>&1 | grep -vE ': (Uid|Gid|Mode|Mod time) differs|^tar: : Warning'",
        [(PRISTINE, "/mnt")], check=False, stdout=subprocess.PIPE, text=True,
    )
    return [line for line in result.stdout.split("\n") if line]
