# SPDX-License-Identifier: GPL-2.0
"""Fuzz the device model with libFuzzer: tools/model/fuzz."""

import os
import re
import shlex

import toolroot
from paths import BUILD, REPO
from steps import Failure

CRATE = REPO / "tools/model/fuzz"
FOUND = BUILD / "fuzz"  # what runs have found, by target; crashes are in crashes/
# Coverage as cargo-fuzz asks for it, without a sanitizer: those need a nightly compiler.
COVERAGE = " ".join((
    "-Cpasses=sancov-module", "-Cllvm-args=-sanitizer-coverage-level=4", "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table", "-Cllvm-args=-sanitizer-coverage-trace-compares", "--cfg=fuzzing",
))
# With --target the flags are for the targets only, not for build scripts.
TRIPLE = "x86_64-unknown-linux-gnu"
PROGRAMS = f"/kernel/cargo/{TRIPLE}/fuzz"
BUILD_SCRIPT = (
    f"cd /repo && RUSTFLAGS='{COVERAGE}' cargo build --locked --package nicmodel-fuzz --features libfuzzer --profile fuzz --target {TRIPLE}"
)
# Far fewer than any target covers; a build without coverage has none.
LEAST_EDGES = 200
# Longest input, seconds for one input, megabytes of memory.
LIMITS = "-len_control=1 -max_len=4096 -timeout=20 -rss_limit_mb=1024"


# The target that has a panic to be found: whether fuzzing can fail.
PLANTED = "planted"


def targets():
    """All of them, or those that FUZZ_TARGETS names."""
    known = sorted(path.stem for path in (CRATE / "fuzz_targets").glob("*.rs") if path.stem != PLANTED)
    wanted = (os.environ.get("FUZZ_TARGETS") or "").split() or known
    if unknown := set(wanted) - set(known):
        raise Failure(f"FUZZ_TARGETS={' '.join(sorted(unknown))} is not known; there are {', '.join(known)}.")
    return wanted


def run(step, seconds, keep, planted=False):
    """Build, then fuzz as many targets at a time as there are CPUs; returns (target, coverage, what went wrong) of each.

    seconds: for each target, unless FUZZ_SECONDS says otherwise. keep: start from what earlier runs have found too, and add to it.
    planted: the target with the planted panic as well.
    """
    seconds = int(os.environ.get("FUZZ_SECONDS") or seconds)
    if step.capture(lambda **pipes: toolroot.start(BUILD_SCRIPT, **pipes)):
        raise Failure("The fuzz targets do not build:\n" + "\n".join(step.output().rstrip().split("\n")[-40:]))
    names = targets() + [PLANTED] * planted
    for name in names:
        (FOUND / name).mkdir(parents=True, exist_ok=True)
        (FOUND / f"{name}.log").unlink(missing_ok=True)
    (FOUND / "crashes").mkdir(exist_ok=True)
    found = "/kernel/fuzz/{}" if keep else '"$(mktemp -d)"'
    one = (
        f"exec {PROGRAMS}/{{}} {LIMITS} -max_total_time={seconds} -print_final_stats=1 -artifact_prefix=/kernel/fuzz/crashes/{{}}- "
        f"{found} $(find /repo/tools/model/fuzz/corpus/{{}} -prune) > /kernel/fuzz/{{}}.log 2>&1"
    )
    script = f"printf '%s\\n' {shlex.join(names)} | xargs -P {os.cpu_count() or 1} -I {{}} sh -c {shlex.quote(one)}"
    step.capture(lambda **pipes: toolroot.start(script, **pipes))
    return [(name, *judge((FOUND / f"{name}.log").read_text(errors="replace"))) for name in names]


def judge(log):
    """Edges that the run covered, and the sentences about what it found, from libFuzzer's output."""
    covered = [int(count) for count in re.findall(r"\bcov: (\d+)", log)]
    if re.search(r"^stat::number_of_executed_units", log, re.M) and not re.search(r"^SUMMARY: libFuzzer: (?!0 )", log, re.M):
        return (covered[-1] if covered else 0), None
    panic = re.search(r"^thread .* panicked at .*\n.*", log, re.M)
    unit = re.search(r"Test unit written to (\S+)", log)
    what = panic[0] if panic else "\n".join(log.rstrip().split("\n")[-15:])
    return (covered[-1] if covered else 0), what + (f"\ninput: {unit[1].replace('/kernel', str(BUILD))}" if unit else "")


def report(outcomes):
    """Say what make fuzz found; returns the exit status."""
    for name, covered, wrong in outcomes:
        print(f"{name}: {covered} edges covered, {'FAILED' if wrong else 'nothing found'}")
        if wrong:
            print("    " + wrong.replace("\n", "\n    "))
    return 1 if any(wrong for _, _, wrong in outcomes) else 0


def check(step, results):
    """A short run from the corpus of the tree; every target must find its way through the model."""
    for name, covered, wrong in run(step, seconds=20, keep=False, planted=True):
        if name == PLANTED:
            results.add("fuzz finds the planted panic", wrong and "the planted panic" in wrong, wrong or "nothing was found")
            continue
        results.add(f"fuzz {name}", wrong is None, wrong or "")
        results.add(f"fuzz {name}: coverage guides it", covered > LEAST_EDGES, f"{covered} edges")
