# SPDX-License-Identifier: GPL-2.0
"""Configure and build the kernel and its modules inside the tool root."""

import hashlib
import os
from pathlib import Path

import overlay
import toolroot
from paths import DEBUG, MODULES, OBJ, REPO
from steps import Failure, need_space

MAKE = 'make -C /kernel/tree O=/kernel/obj LLVM=1 CC="ccache clang"'
IMAGE = OBJ / "arch/x86/boot/bzImage"
# A build whose name ends in -debug has the kernel of make check-debug.
FRAGMENTS = ("base", "selftests", "debug") if DEBUG else ("base", "selftests")

CONFIGURE = rf"""
set -e
cd /kernel/obj
# The last word on an option counts.
cat {{fragments}} | awk '/^(# )?CONFIG_/ {{ name = $1 == "#" ? $2 : $1; sub(/=.*/, "", name); last[name] = $0 }}
    END {{ for (name in last) print last[name] }}' > wanted
{MAKE} -s tinyconfig
/kernel/tree/scripts/kconfig/merge_config.sh -m -O . .config wanted >/dev/null
{MAKE} -s olddefconfig
while read -r line; do
    case $line in
    CONFIG_*) grep -qxF -- "$line" .config || echo "not in the final configuration: $line" ;;
    '# CONFIG_'*' is not set') name=${{line#\# }}; if grep -q "^${{name%% *}}=" .config; then echo "not in the final configuration: $line"; fi ;;
    esac
done < wanted > missing
if [ -s missing ]; then cat missing; exit 1; fi
"""


def stamp_is(path, text):
    return path.exists() and path.read_text() == text


def configure(step=None):
    """Make the configuration anew if a fragment or a Kconfig file of ours changed."""
    OBJ.mkdir(parents=True, exist_ok=True)
    texts = "".join((REPO / f"configs/{name}.config").read_text() for name in FRAGMENTS)
    kconfig = overlay.digest(path for path in overlay.ours() if Path(path).name.startswith("Kconfig"))
    state = hashlib.sha256((texts + kconfig + CONFIGURE).encode()).hexdigest()
    stamp = OBJ / "configured"
    if (OBJ / ".config").exists() and stamp_is(stamp, state):
        return
    stamp.unlink(missing_ok=True)
    (OBJ / "missing").unlink(missing_ok=True)
    script = CONFIGURE.replace("{fragments}", " ".join(f"/repo/configs/{name}.config" for name in FRAGMENTS))
    if step:
        status = step.capture(lambda **pipes: toolroot.start(script, **pipes))
    else:
        status = toolroot.run(script, check=False).returncode
    if status:
        missing = OBJ / "missing"
        what = missing.read_text() if missing.exists() else "make did not come that far."
        raise Failure(f"The kernel cannot be configured as configs/ wants it:\n{what}".rstrip())
    stamp.write_text(state)


def state():
    """Everything that the built kernel depends on."""
    files = overlay.digest(overlay.ours())
    root = (toolroot.ROOT / "etc/ulp-ddp-root").read_text()
    return hashlib.sha256((files + root + (OBJ / "configured").read_text()).encode()).hexdigest()


def build(step):
    first = not IMAGE.exists()
    if first:
        need_space(3, "The kernel build")
    configure(step)
    stamp = OBJ / "built"
    if IMAGE.exists() and (MODULES / "lib").is_dir() and stamp_is(stamp, state()):
        step.up_to_date()
        return
    stamp.unlink(missing_ok=True)
    # The number of lines of the full build gives the scale.
    scale = OBJ / "lines"
    expected = int(scale.read_text()) if scale.exists() else 1970
    lines = 0

    def progress(_line):
        nonlocal lines
        lines += 1
        step.progress = f"{lines} of about {expected} files" if lines <= expected else f"{lines} files"

    jobs = os.cpu_count() or 1
    script = (
        f"set -e; {MAKE} -j{jobs} bzImage modules; "
        f"{MAKE} -s INSTALL_MOD_PATH=/kernel/modules INSTALL_MOD_STRIP=1 modules_install"
    )
    if step.capture(lambda **pipes: toolroot.start(script, **pipes), progress):
        raise Failure(f"The kernel does not build:\n{errors(step.output())}")
    if first:
        scale.write_text(str(lines))
    stamp.write_text(state())


def errors(output, most=40):
    """The part of a build log that says what is wrong."""
    lines = output.rstrip().split("\n")
    first = next((i for i, line in enumerate(lines) if "error" in line.lower() and "Werror" not in line), max(0, len(lines) - most))
    return "\n".join(lines[max(0, first - 2): first + most])


def make(target):
    """Any make target of the overlaid tree, for development; returns its status."""
    overlay.apply()
    configure()
    return toolroot.run(f"{MAKE} {target}", check=False).returncode


