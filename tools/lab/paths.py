# SPDX-License-Identifier: GPL-2.0
"""Where the lab keeps things. Nothing is written into the checkout."""

import os
import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
# All of it is the lab's own, so that it can be removed.
CACHE = Path(os.environ.get("ULP_DDP_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ulp-ddp"
ROOT = CACHE / "root"  # tool root: a Debian tree made by mmdebstrap
PRISTINE = CACHE / "pristine"  # the pinned kernel source, never edited
SELFTESTS = CACHE / "selftests"  # that source's own tests of network drivers, built
# One kernel tree with its objects; several can exist side by side.
NAME = os.environ.get("BUILD") or "base"
if not re.fullmatch(r"\w[\w.-]*", NAME, re.ASCII):
    raise SystemExit(f"BUILD={NAME} is not the name of a build: letters, digits, and - _ . between them.")
BUILD = CACHE / "builds" / NAME
DEBUG = BUILD.name.endswith("-debug")
TREE = BUILD / "tree"  # pristine + patches + overlay
OBJ = BUILD / "obj"
MODULES = BUILD / "modules"
# A debug kernel runs on the same device model.
CARGO_TARGET = BUILD.with_name(BUILD.name.removesuffix("-debug")) / "cargo"
LOGS = BUILD / "logs"
