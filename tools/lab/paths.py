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
# One kernel tree with its objects; several can exist side by side.
BUILD = CACHE / "builds" / os.environ.get("BUILD", "base")
TREE = BUILD / "tree"  # pristine + patches + overlay
OBJ = BUILD / "obj"
MODULES = BUILD / "modules"
CARGO_TARGET = BUILD / "cargo"
LOGS = BUILD / "logs"
