# SPDX-License-Identifier: GPL-2.0
"""Where the lab keeps things. Nothing is written into the checkout."""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
CACHE = Path(
    os.environ.get("ULP_DDP_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ulp-ddp"
)
ROOT = CACHE / "root"  # tool root: a Debian tree made by mmdebstrap
PRISTINE = CACHE / "pristine"  # the pinned kernel source, never edited
SELFTESTS = CACHE / "selftests"  # that source's own tests of network drivers, built
# One kernel tree with its objects; several can exist side by side.
BUILD = CACHE / "builds" / os.environ.get("BUILD", "base")
DEBUG = BUILD.name.endswith("-debug")
TREE = BUILD / "tree"  # pristine + patches + overlay
OBJ = BUILD / "obj"
MODULES = BUILD / "modules"
# A debug kernel runs on the same device model.
CARGO_TARGET = BUILD.with_name(BUILD.name.removesuffix("-debug")) / "cargo"
LOGS = BUILD / "logs"
