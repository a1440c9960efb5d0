# SPDX-License-Identifier: GPL-2.0
"""Build the device model."""

import toolroot
from paths import CARGO_TARGET
from steps import Failure

BINARY = CARGO_TARGET / "release/nicmodel"


def build(step):
    crates = 0

    def progress(line):
        nonlocal crates
        if "Compiling" in line:
            crates += 1
            step.progress = f"{crates} crates"

    before = BINARY.stat().st_mtime_ns if BINARY.exists() else None
    script = "cd /repo && cargo build --release --locked --package nicmodel"
    if step.capture(lambda **pipes: toolroot.start(script, **pipes), progress):
        output = step.output()
        if "failed to download" in output or "failed to fetch" in output or "Could not resolve host" in output:
            raise Failure("cargo cannot reach the crate registry: check the network and cargo's proxy settings.")
        raise Failure("The device model does not build:\n" + "\n".join(output.rstrip().split("\n")[-40:]))
    if before == BINARY.stat().st_mtime_ns:
        step.up_to_date()
