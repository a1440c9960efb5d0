# SPDX-License-Identifier: GPL-2.0
"""The demo: real files read over NVMe/TCP, placed by the NIC, and not."""

import json
import os

import toolroot
import vm
from paths import BUILD, PRISTINE
from source import STAMP
from steps import Failure, need_space

DATA = BUILD / "demo"
IMAGE = DATA / "files.img"
SUMS = DATA / "sha256sums"
RANDOM_MIB = 256
TIMEOUT = 1500
# Of the payload of reads of 32 KiB and more that the NIC must have placed.
PLACED_SHARE = 0.9

# The list of checksums is made here, from the files before they are in the image.
MAKE_DATA = f"""
set -e
cd /kernel/demo.new
mkdir files
cp -r /mnt/Documentation files/
head -c {RANDOM_MIB}M /dev/urandom > files/random.bin
(cd files && find . -type f -print0 | sort -z | xargs -0 sha256sum) > sha256sums
used=$(du -sm files | cut -f1)
mke2fs -q -t ext4 -d files files.img $((used * 5 / 4 + 128))M
rm -r files
"""


def make_data(step):
    """A file system of real files and the list of their checksums, made outside of the guest."""
    stamp = DATA / "stamp"
    wanted = (PRISTINE / STAMP).read_text() + MAKE_DATA
    if stamp.exists() and stamp.read_text() == wanted:
        step.up_to_date()
        return
    need_space(2, "The demo's files")
    fresh = BUILD / "demo.new"
    toolroot.remove(fresh)
    fresh.mkdir(parents=True)
    if step.capture(lambda **pipes: toolroot.start(MAKE_DATA, [(PRISTINE, "/mnt")], **pipes)):
        raise Failure("The demo's file system could not be made.")
    (fresh / "stamp").write_text(wanted)
    toolroot.remove(DATA)
    os.rename(fresh, DATA)


def run(step):
    """Boot, read everything four times; returns the passes that the guest measured."""
    settings = {**vm.topology(), "TARGET_DEVICE": "/dev/vda"}
    guest = vm.Guest(
        run="/opt/repo/tools/lab/guest/demo", ports=vm.ports(settings), topology=settings, disks=(IMAGE,), timeout=TIMEOUT,
        files={"sha256sums": SUMS.read_text()},
    )

    def progress(line):
        if line.startswith("# "):
            step.progress = line[2:].strip()[:70]

    outcome = vm.boot(guest, lambda script, binds: step.capture(lambda **pipes: toolroot.start(script, binds, **pipes), progress))
    if not outcome.ended:
        raise Failure(vm.explain(outcome, TIMEOUT))
    if outcome.status or "demo.json" not in outcome.results:
        lines = step.output().rstrip().split("\n")[-25:]
        raise Failure("The demo failed in the guest:\n" + "\n".join(lines))
    if complaints := outcome.complaints():
        raise Failure(f"The guest's kernel complained ({vm.LOGS / 'console.log'}):\n" + "\n".join(complaints[:5]))
    return json.loads(outcome.results["demo.json"])


ROWS = (
    ("bytes read", lambda moved: moved["bytes_placed"] + moved["bytes_copied"]),
    ("bytes placed by the NIC", lambda moved: moved["bytes_placed"]),
    ("bytes copied by the CPU", lambda moved: moved["bytes_copied"]),
    ("PDUs whose digest the NIC vouched for", lambda moved: moved["ddgst_nic"]),
    ("PDUs checked in software", lambda moved: moved["ddgst_sw"]),
    ("payload of reads of 32 KiB and more", lambda moved: moved["read_bytes_large"]),
    ("  of it placed by the NIC", lambda moved: moved["placed_bytes_large"]),
)


def table(passes):
    """The demo's table, one column per pass."""
    heads = [("both digests" if p["digests"] else "no digest", f"offload {'on' if p['offload'] else 'off'}") for p in passes]
    lines = [f"{'':38}" + "".join(f"{head[row]:>17}" for head in heads) for row in (0, 1)]
    for title, value in ROWS:
        lines.append(f"{title:38}" + "".join(f"{value(p['moved']):>17,}" for p in passes))
    shares = [p["moved"]["placed_bytes_large"] / max(1, p["moved"]["read_bytes_large"]) for p in passes]
    lines.append(f"{'  of it placed, in percent':38}" + "".join(f"{100 * share:>17.1f}" for share in shares))
    lines.append(f"{'seconds for the files':38}" + "".join(f"{p['files_seconds']:>17.1f}" for p in passes))
    lines.append(f"{'checksums and fio':38}" + "".join(f"{'all right' if p['good'] else 'WRONG':>17}" for p in passes))
    return "\n".join(lines)


def verdict(passes):
    """What is not as it has to be, one sentence each."""
    wrong = []
    for p in passes:
        moved = p["moved"]
        name = f"with{'' if p['digests'] else 'out'} digests, offload {'on' if p['offload'] else 'off'}"
        if not p["good"]:
            wrong.append(f"{name}: a checksum or fio's verification did not match")
        if moved["read_bytes_large"] < RANDOM_MIB << 20:
            wrong.append(f"{name}: fewer bytes were read than the largest file has")
        if p["offload"]:
            if moved["placed_bytes_large"] < PLACED_SHARE * moved["read_bytes_large"]:
                wrong.append(f"{name}: less than {PLACED_SHARE:.0%} of the payload of large reads was placed")
            if p["digests"] and not moved["ddgst_nic"]:
                wrong.append(f"{name}: the NIC vouched for no digest")
        elif moved["bytes_placed"] or moved.get("rx-nvme-tcp-bytes", 0):
            wrong.append(f"{name}: bytes were placed")
    return wrong


def report(passes):
    """Print the table and the verdict; returns the exit status."""
    print()
    print(table(passes))
    print()
    wrong = verdict(passes)
    for sentence in wrong:
        print(sentence)
    print("FAIL" if wrong else "PASS")
    return 1 if wrong else 0
