# SPDX-License-Identifier: GPL-2.0
"""Configure and build the kernel and its modules inside the tool root."""

import overlay
import toolroot
from paths import BUILD, OBJ, REPO

MAKE = 'make -C /kernel/tree O=/kernel/obj LLVM=1 CC="ccache clang"'

CONFIGURE = rf"""
set -e
cd /kernel/obj
cat {{fragments}} > wanted
if ! cmp -s wanted wanted.used || [ ! -f .config ] || [ "$(cat /kernel/kconfig.sum 2>/dev/null)" != "$(cd /kernel/tree; find . -name 'Kconfig*' -newer /kernel/obj/.config | md5sum)" ]; then
    {MAKE} -s tinyconfig
    /kernel/tree/scripts/kconfig/merge_config.sh -m -O . .config wanted >/dev/null
    {MAKE} -s olddefconfig
    grep -E '^CONFIG_' wanted | while read -r line; do grep -qx -- "$line" .config || echo "not in the final configuration: $line"; done > missing
    if [ -s missing ]; then cat missing; exit 1; fi
    cp wanted wanted.used
    (cd /kernel/tree; find . -name 'Kconfig*' -newer /kernel/obj/.config | md5sum) > /kernel/kconfig.sum
fi
"""


def configure(fragments=("base",)):
    OBJ.mkdir(parents=True, exist_ok=True)
    names = " ".join(f"/repo/configs/{name}.config" for name in fragments)
    toolroot.run(CONFIGURE.replace("{fragments}", names))


def build(jobs=2):
    overlay.apply()
    configure()
    toolroot.run(
        f"{MAKE} -s -j{jobs} bzImage modules && "
        f"{MAKE} -s INSTALL_MOD_PATH=/kernel/modules INSTALL_MOD_STRIP=1 modules_install"
    )


def make(target):
    """Any make target of the overlaid tree, for development."""
    overlay.apply()
    configure()
    toolroot.run(f"{MAKE} {target}")
