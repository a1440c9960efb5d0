# SPDX-License-Identifier: GPL-2.0
"""Entry point: python3 tools/lab COMMAND."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import kernel
import overlay
import toolroot
import vm


def main():
    command, *args = sys.argv[1:] or ["help"]
    if command == "overlay":
        print(f"{overlay.apply()} files written")
    elif command == "kernel":
        kernel.build()
    elif command == "make":
        kernel.make(" ".join(args))
    elif command == "root":
        raise SystemExit(toolroot.run(" ".join(args) or "bash", check=False).returncode)
    elif command == "vm":
        raise SystemExit(vm.main(args))
    else:
        raise SystemExit("commands: overlay kernel make root vm")


if __name__ == "__main__":
    main()
