# SPDX-License-Identifier: GPL-2.0
"""Tests of the lab that need neither a tool root nor a kernel."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
