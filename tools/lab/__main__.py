# SPDX-License-Identifier: GPL-2.0
"""Entry point: python3 tools/lab COMMAND."""

import os
import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bench
import check
import debug
import demo
import fuzz
import kernel
import model
import overlay
import selftests
import source
import toolroot
import vm
from paths import BUILD, CACHE
from steps import Failure, Runner

STEPS = {
    "tool root": toolroot.create,
    "kernel source": source.unpack,
    "kernel tree": overlay.update,
    "kernel": kernel.build,
    "device model": model.build,
    "demo files": demo.make_data,
    "selftests": selftests.build,
}

BASE = ("tool root", "kernel source")


def prepare(*names, more=0, quiet=False):
    """Run the named steps of the set-up; returns the runner for further ones."""
    runner = Runner(len(names) + more, quiet)
    with toolroot.locked(f"build-{BUILD.name}"):
        for name in names:
            with runner.step(name) as step:
                STEPS[name](step)
    return runner


def run_demo():
    runner = prepare(*BASE, "kernel tree", "kernel", "device model", "demo files", more=1)
    with runner.step("demo") as step:
        passes = demo.run(step)
    return demo.report(passes)


def run_bench():
    runner = prepare(*BASE, "kernel tree", "kernel", "device model", more=1)
    with runner.step("bench-nic") as step:
        measured = bench.run(step)
    bench.publish(measured)
    return 0


def run_fuzz():
    runner = prepare("tool root", more=1)
    with runner.step("fuzz") as step:
        outcomes = fuzz.run(step, seconds=600, keep=True)
    return fuzz.report(outcomes)


def run_selftests():
    wanted = len(selftests.drivers()) * len(selftests.selected())
    return selftests.run(prepare(*BASE, "kernel tree", "kernel", "device model", "selftests", more=wanted))


def clean():
    toolroot.remove(BUILD)


def distclean():
    toolroot.check_namespace()
    for name in ("root", "root.new", "root.old", "pristine", "pristine.new", "pristine.old", "selftests", "selftests.new", "builds", "cargo", "ccache"):
        toolroot.remove(CACHE / name)
    shutil.rmtree(CACHE, ignore_errors=True)


def dispatch(command, args):
    if command == "root-only":
        prepare("tool root")
    elif command == "overlay":
        prepare(*BASE, "kernel tree")
    elif command == "kernel":
        prepare(*BASE, "kernel tree", "kernel")
    elif command == "model":
        prepare("tool root", "device model")
    elif command == "make":
        return kernel.make(" ".join(args))
    elif command == "root":
        return toolroot.run(" ".join(args) or "bash", check=False).returncode
    elif command == "check":
        return check.run(prepare)
    elif command == "bench-nic":
        return run_bench()
    elif command == "fuzz":
        return run_fuzz()
    elif command == "check-debug":
        return debug.run(prepare)
    elif command == "demo":
        return run_demo()
    elif command == "selftests":
        return run_selftests()
    elif command == "make-vm":
        settings = vm.topology()
        quiet = bool(os.environ.get("RUN"))
        prepare(*BASE, "kernel tree", "kernel", *(["device model"] if vm.ports(settings) else []), quiet=quiet)
        return vm.interactive()
    elif command == "vm":
        return vm.main(args)
    elif command == "clean":
        clean()
    elif command == "distclean":
        distclean()
    else:
        raise Failure("Commands: demo check fuzz bench-nic check-debug selftests overlay kernel model make root vm make-vm clean distclean.")
    return 0


def main():
    command, *args = sys.argv[1:] or ["help"]
    # What runs in the tool root ends with this process, and temporary files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # chroot and mke2fs are not in an ordinary user's path.
    os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    try:
        status = dispatch(command, args)
    except Failure as failure:
        print(failure, file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        status = 130
    raise SystemExit(status)


if __name__ == "__main__":
    main()
