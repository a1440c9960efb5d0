# SPDX-License-Identifier: GPL-2.0
"""Every test of the project; what .ci/run and make check call."""

import filecmp
import os
import re
import shlex
import tempfile
import traceback
from pathlib import Path

import fuzz
import kernel
import ktap
import overlay
import selftests
import source
import toolroot
import vm
from overlay import tracked
from paths import BUILD, CACHE, DEBUG, REPO, TREE
from steps import Failure

RUFF = "ruff==0.14.5"
DOCUTILS = "docutils==0.21.2"
CLIPPY_MAKE = 'make -C /kernel/tree O=/kernel/clippy LLVM=1 CC="ccache clang" CLIPPY=1'
# Rust of ours in the kernel tree, as make targets; only what exists is built.
RUST_TARGETS = ("rust/", "drivers/net/ethernet/mellanox/mlx5_rs/", "drivers/nvme/host/", "samples/rust/")
# Suites that a module brings along run when it is loaded.
MODULES = ("mlx5_rs", "nvme-tcp")
# What "make rustdoc" does for the kernel crate, without the pages and without all that it depends on.
RUSTDOC = (
    "cd /kernel/obj && OBJTREE=$PWD RUST_MODFILE=kernel RUSTC_BOOTSTRAP=1 rustdoc --check -Zunstable-options --edition=2021 "
    "--target=./scripts/target.json --sysroot=/dev/null -Lrust @include/generated/rustc_cfg --crate-name kernel /kernel/tree/rust/kernel/lib.rs "
    + " ".join(f"--extern {name}" for name in ("ffi", "pin_init", "build_error", "macros", "bindings", "uapi", "zerocopy", "zerocopy_derive"))
)
# checkpatch's types that do not apply here, each with its reason.
CHECKPATCH_IGNORE = {
    "FILE_PATH_CHANGES": "MAINTAINERS lines of new files belong to the overlay's own MAINTAINERS",
    "CONFIG_DESCRIPTION": "short help texts are fine for one-line options",
    "NOT_UNIFIED_DIFF": "false alarm on patches without an index line",
    "COMMIT_LOG_USE_LINK": "there is no public thread to link to yet",
    "MISSING_SIGN_OFF": "files of the overlay are signed off when they are sent, not here",
}


class Results:
    """Counts what passed and shows what failed as soon as it is known."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def add(self, name, good, detail=""):
        if good:
            self.passed += 1
            return
        self.failed += 1
        print(f"FAILED: {name}", flush=True)
        for line in detail.rstrip().split("\n")[:40] if detail else ():
            print(f"    {line}", flush=True)


def command(step, script, binds=()):
    """Run in the tool root, output to the step's log; returns (good, output)."""
    at = len(step.output())
    status = step.capture(lambda **pipes: toolroot.start(script, binds, **pipes))
    return status == 0, step.output()[at:]


def quoted(names):
    return " ".join(shlex.quote(name) for name in names)


def rust_workspaces():
    return [str(Path(name).parent) for name in tracked("*Cargo.toml") if re.search(r"^\[workspace\]", (REPO / name).read_text(), re.M)]


def formatting(step, results):
    files = [name for name in overlay.overlay_files() if name.endswith(".rs")]
    for name in files:
        good, output = command(step, f"cd /kernel/tree && rustfmt --check --edition 2021 {shlex.quote(name)}")
        results.add(f"rustfmt {name}", good, output)
    for workspace in rust_workspaces():
        good, output = command(step, f"cd /repo/{workspace} && cargo fmt --all --check")
        results.add(f"cargo fmt {workspace}", good, output)


def scripts(step, results):
    shell = [name for name in tracked() if re.match(r"#!.*\b(bash|sh)\b", first_line(name))]
    good, output = command(step, f"cd /repo && shellcheck {quoted(shell)}")
    results.add("shellcheck", good, output)
    python = sorted({name for name in tracked() if name.endswith(".py") or re.match(r"#!.*\bpython3", first_line(name))})
    venv = [(CACHE / "ruff", "/ruff")]
    (CACHE / "ruff").mkdir(exist_ok=True)
    install = f"test -x /ruff/{RUFF}/bin/ruff || {{ python3 -m venv /ruff/{RUFF} && /ruff/{RUFF}/bin/pip -q install {RUFF}; }}"
    good, output = command(step, install, venv)
    if good:
        good, output = command(step, f"cd /repo && /ruff/{RUFF}/bin/ruff check --no-cache {quoted(python)}", venv)
    results.add("ruff", good, output)
    texts = [name for name in tracked() if name.endswith((".md", ".rst", ".rs", ".py", ".c", ".h"))]
    # Names of command layouts: input of a command with no parameter, or with one number.
    good, output = command(step, f"cd /repo && codespell --builtin clear --ignore-words-list emptyin,numberin {quoted(texts)}")
    results.add("codespell", good, output)


def first_line(name):
    with open(REPO / name, "rb") as file:
        return file.readline(200).decode(errors="replace")


def licences(_step, results):
    missing = [
        name for name in tracked()
        if name.endswith((".rs", ".c", ".h", ".py", ".sh", ".yaml", ".rst", "Makefile", "Kconfig", "Kbuild"))
        and "SPDX-License-Identifier" not in "".join((REPO / name).read_text(errors="replace").split("\n")[:4])
    ]
    results.add("SPDX lines", not missing, "\n".join(missing))


def checkpatch(step, results):
    options = f"--typedefsfile /repo/tools/lab/checkpatch.typedefs --strict --show-types -q --no-summary --ignore {','.join(CHECKPATCH_IGNORE)}"
    for name in overlay.overlay_files():
        if name.endswith((".c", ".h")):
            _, output = command(step, f"cd /kernel/tree && perl scripts/checkpatch.pl {options} -f {shlex.quote(name)}")
            results.add(f"checkpatch {name}", not output.strip(), output)
    for name in overlay.series():
        _, output = command(step, f"cd /kernel/tree && perl scripts/checkpatch.pl {options} /repo/patches/{shlex.quote(name)}")
        results.add(f"checkpatch patches/{name}", not output.strip(), output)


def documentation(step, results):
    """kernel-doc comments of our C, rustdoc, and our reStructuredText as far as it needs no Sphinx."""
    sources = [name for name in overlay.overlay_files() if name.endswith((".c", ".h"))]
    good, output = command(step, f"cd /kernel/tree && PYTHONDONTWRITEBYTECODE=1 tools/docs/kernel-doc -Werror -none {quoted(sources)}")
    results.add("kernel-doc", good, output)
    good, output = command(step, RUSTDOC)
    warned = [text for text in warnings(output) if place_of(text) in overlay.overlay_files()]
    results.add("rustdoc", good and not warned, "\n".join(warned) or output)
    venv = [(CACHE / "ruff", "/ruff")]
    install = f"test -x /ruff/{DOCUTILS}/bin/docutils || {{ python3 -m venv /ruff/{DOCUTILS} && /ruff/{DOCUTILS}/bin/pip -q install {DOCUTILS}; }}"
    good, output = command(step, install, venv)
    for name in tracked("Documentation/*.rst") if good else ():
        convert = f"/ruff/{DOCUTILS}/bin/docutils --report=warning --halt=warning --syntax-highlight=none"
        good, output = command(step, f"cd /repo && {convert} {shlex.quote(name)} /dev/null", venv)
        if not good:
            break
    results.add("reStructuredText", good, output)


def tree(step, results):
    """Pin + patches + overlay, from scratch, are the tree that is tested; nothing else is in it."""
    damage = source.differences()
    results.add("the unpacked source equals its archive", not damage, "\n".join(damage))
    with tempfile.TemporaryDirectory(prefix="tree-", dir=CACHE) as tmp:
        fresh = Path(tmp) / "tree"
        overlay.apply(fresh, Path(tmp) / "manifest")
        different = list(differences(fresh, TREE))
        results.add("the tree is pin + patches + overlay", not different, "\n".join(different))
    step.note = f"{len(overlay.ours())} files differ from the pinned source"


def differences(one, other):
    """Names of files that are not the same in both trees."""
    for directory, names, files in os.walk(one):
        relative = Path(directory).relative_to(one)
        beside = other / relative
        for missing in set(os.listdir(beside)) - set(names) - set(files) if beside.is_dir() else ():
            yield f"only in the tested tree: {relative / missing}"
        for name in files:
            if name == source.STAMP:
                continue  # the lab's own mark, not source
            a, b = Path(directory) / name, beside / name
            if not b.exists() and not b.is_symlink():
                yield f"missing in the tested tree: {relative / name}"
            elif a.is_symlink() or b.is_symlink():
                if not (a.is_symlink() and b.is_symlink() and os.readlink(a) == os.readlink(b)):
                    yield f"differs: {relative / name}"
            elif not os.path.samefile(a, b) and not filecmp.cmp(a, b, shallow=False):
                yield f"differs: {relative / name}"


def warnings(output):
    """The messages of a Rust tool."""
    return re.split(r"\n(?=warning|error)", output)


def place_of(message):
    """The file in the kernel tree that a message is about, if it is about one."""
    place = re.search(r"--> (?:/kernel/tree/)?([\w./-]+\.rs):", message)
    return place[1] if place else None


def kernel_clippy(step, results):
    """Clippy over our kernel code, in an object directory of its own: it changes every rustc command."""
    objects = BUILD / "clippy"
    objects.mkdir(exist_ok=True)
    config = (kernel.OBJ / ".config").read_bytes()
    if not (objects / ".config").exists() or (objects / "wanted").read_bytes() != config:
        (objects / ".config").write_bytes(config)
        (objects / "wanted").write_bytes(config)
    targets = " ".join(target for target in RUST_TARGETS if any(name.startswith(target) for name in overlay.overlay_files()))
    make = f"{CLIPPY_MAKE} -j{os.cpu_count()}"
    good, output = command(step, f"set -e; {make} -s olddefconfig; {make} -s prepare; {make} {targets}")
    # Some of the kernel's own files are not clean with this clippy; ours are. make remembers no
    # warning, so what has one is forgotten for the next run to compile it again.
    ours = set(overlay.overlay_files())
    warned = []
    for text in warnings(output):
        place = place_of(text)
        if place in ours:
            warned.append(text)
            top = Path(place).parent if not place.startswith("rust/") else Path("rust")
            for stale in (objects / top).glob("*.o"):
                stale.unlink()
    results.add("clippy builds the kernel's Rust", good, kernel.errors(output))
    results.add("clippy on our Rust in the kernel", not warned, "\n".join(warned))


def host_tests(step, results):
    for workspace in rust_workspaces():
        good, output = command(step, f"cd /repo/{workspace} && cargo clippy --release --locked --workspace --all-targets -- -D warnings")
        results.add(f"cargo clippy {workspace}", good, "\n".join(output.split("\n")[-40:]))
        good, output = command(step, f"cd /repo/{workspace} && cargo test --release --locked --workspace --no-fail-fast")
        found = re.findall(r"^test (.+?) \.\.\. (ok|FAILED|ignored)", output, re.M)
        for name, outcome in found:
            results.add(f"{workspace}: {name}", outcome == "ok", output_of(name, output) if outcome == "FAILED" else outcome)
        if not good and not any(outcome == "FAILED" for _, outcome in found):
            results.add(f"cargo test {workspace}", False, "\n".join(output.split("\n")[-40:]))
    good, output = command(step, "cd /repo && python3 -B -m unittest discover -v -s tools/lab/tests -t tools/lab 2>&1")
    for name, outcome in re.findall(r"^(test\w* \([\w.]+\)).* \.\.\. (ok|FAIL|ERROR)$", output, re.M):
        results.add(f"lab: {name}", outcome == "ok", output[-2000:])
    if not good:
        results.add("tests of the lab", False, output[-2000:])


def output_of(name, output):
    match = re.search(rf"---- {re.escape(name)} stdout ----\n(.*?)(?:\n----|\nfailures:)", output, re.S)
    return match[1] if match else ""


def in_vm(step, guest):
    """Boot with all output in the step's log; returns (outcome, what the commands printed)."""
    at = len(step.output())
    outcome = vm.boot(guest, lambda script, binds: step.capture(lambda **pipes: toolroot.start(script, binds, **pipes)))
    step.path.with_suffix(".console.log").write_text(outcome.console)
    return outcome, step.output()[at:]


def add_ktap(results, where, text, outcome, timeout, may_skip=False):
    """Count each result. A skip hides a failure, unless the test is also for drivers that cannot do it."""
    found, problems = ktap.parse(text)
    for result in found:
        if may_skip and result.skipped:
            print(f"skipped: {where}: {result.name}: {result.comment}", flush=True)
            continue
        results.add(f"{where}: {result.name}", result.good and not result.skipped, result.comment)
    for problem in problems:
        results.add(f"{where}: incomplete", False, problem)
    if not found:
        results.add(f"{where}: no result", False, text[-2000:])
    if not outcome.ended:
        results.add(f"{where}: VM", False, vm.explain(outcome, timeout))
    return found


def kunit(step, results):
    """KUnit suites and doctests; they run at boot, those of modules when they are loaded."""
    timeout = 900
    append = "kunit.enable=1 ignore_loglevel log_buf_len=16M"
    if DEBUG:
        # The kernel's own doctests of rust/kernel/time/hrtimer.rs have timers on the stack without saying so.
        append += " no_debug_objects"
    present = [name for name in MODULES if list((BUILD / "modules").rglob(f"{name}.ko"))]
    guest = vm.Guest(
        run="\n".join(f"modprobe {name} || exit 1" for name in present) or "true", ports=0, timeout=timeout,
        append=append,
    )
    outcome, _ = in_vm(step, guest)
    found = add_ktap(results, "KUnit", outcome.console, outcome, timeout)
    results.add("KUnit: doctests were among them", any("doctest" in result.name for result in found))
    complaints = outcome.complaints()
    results.add("KUnit: the kernel does not complain", not complaints, "\n".join(complaints))


def kselftests(step, results):
    """Our kselftests on the demo's topology, each with the fault plan beside it if there is one."""
    timeout = 1500
    tests = [name for name in overlay.overlay_files() if name.startswith("tools/testing/selftests/") and os.access(REPO / name, os.X_OK)]
    settings = {"DRIVER": "mlx5_rs", "HOST": "rs"}
    for name in tests:
        plan = (REPO / name).with_suffix(".toml")
        guest = vm.Guest(
            run=f"cd /opt/kernel/{Path(name).parent} && python3 -B ./{Path(name).name}", ports=2, timeout=timeout, topology=settings,
            faults=plan.read_text() if plan.exists() else None,
        )
        outcome, output = in_vm(step, guest)
        add_ktap(results, Path(name).name, output, outcome, timeout)
        complaints = outcome.complaints()
        results.add(f"{Path(name).name}: the kernel does not complain", not complaints, "\n".join(complaints))


def network_tests(step, results):
    """A part of the kernel's own tests of network drivers, with both drivers: none may do worse than recorded."""
    record = selftests.Record()
    for driver in selftests.DRIVERS:
        for test in selftests.QUICK:
            found = selftests.run_test(step, driver, test)
            wrong = record.worse(driver, test, found)
            for name in found:
                results.add(f"{driver}: {test}: {name}", name not in wrong, wrong.get(name, ""))


def judges(step, results):
    """The kernel's own driver on the device model, and ours by the same measure.

    A judge with a fault plan beside it looks at the model's faults, by the kernel's driver alone.
    """
    timeout = 900
    for name in tracked("tools/model/judge/*.sh"):
        plan = (REPO / name).with_suffix(".toml")
        faults = plan.read_text() if plan.exists() else None
        for driver in ("mlx5_core",) if faults else ("mlx5_core", "mlx5_rs"):
            guest = vm.Guest(run=f"DRIVER={driver} bash /opt/repo/{name}", ports=2, timeout=timeout, faults=faults)
            outcome, output = in_vm(step, guest)
            add_ktap(results, f"{driver} on the model", output, outcome, timeout, may_skip=driver != "mlx5_core")


VERIFIED_IO = """
nvme connect -t tcp -a $NVME_TRADDR -s $NVME_TRSVCID -n $NVME_SUBNQN --data-digest || exit 1
until [ -b /dev/nvme0n1 ]; do sleep 0.1; done
fio --name=io --filename=/dev/nvme0n1 --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bsrange=4k-256k --size=32M \
    --verify=crc32c --verify_fatal=1 || exit 1
nvme disconnect -n $NVME_SUBNQN
modprobe -r {module}
"""


def strangers(step, results):
    """Each of our drivers with the kernel's own on the other side of the layer."""
    timeout = 600
    for driver, host, module in (("mlx5_rs", "c", "nvme-tcp-c"), ("mlx5_core", "rs", "nvme-tcp")):
        guest = vm.Guest(run=VERIFIED_IO.replace("{module}", module), ports=2, timeout=timeout, topology={"DRIVER": driver, "HOST": host})
        outcome, output = in_vm(step, guest)
        good = outcome.ended and outcome.status == 0
        results.add(f"verified I/O of {module} over {driver}", good, output if outcome.ended else vm.explain(outcome, timeout))
        complaints = outcome.complaints()
        results.add(f"{module} over {driver}: the kernel does not complain", not complaints, "\n".join(complaints))


PLACED_READS = """
ssh $REMOTE_ARGS hostname | grep -qx target || exit 1
ethtool -K $NETIF ulp-ddp on || exit 1
nvme connect -t tcp -a $NVME_TRADDR -s $NVME_TRSVCID -n $NVME_SUBNQN --data-digest || exit 1
until [ -b /dev/nvme0n1 ]; do sleep 0.1; done
fio --name=io --filename=/dev/nvme0n1 --direct=1 --ioengine=libaio --iodepth=4 --rw=write --bs=64k --size=2M --verify=crc32c --verify_fatal=1 || exit 1
nvme disconnect -n $NVME_SUBNQN
"""


def two_vms(step, results):
    """The target in a VM of its own; the capture of it says what the device did."""
    timeout = 600
    capture = BUILD / "two-vms.pcapng"
    settings = {"DRIVER": "mlx5_rs", "HOST": "rs", "TOPO": "two"}
    outcome, output = in_vm(step, vm.Guest(run=PLACED_READS, topology=settings, capture=capture, timeout=timeout))
    results.add("verified I/O with the target in its own VM", outcome.ended and outcome.status == 0, output if outcome.ended else vm.explain(outcome, timeout))
    complaints = outcome.complaints()
    results.add("two VMs: the kernels do not complain", not complaints, "\n".join(complaints))
    script = f"tshark -r /kernel/{capture.name} -T fields -e frame.comment -Y 'frame.comment contains \"placed in ccid\" && frame.interface_name == \"port0\"'"
    good, output = command(step, script)
    results.add("tshark shows where the device placed payload", good and "digest ok" in output, output[:2000])
    capture.unlink(missing_ok=True)


def run(prepare):
    """All checks; a failed set-up is a failed check. Returns the exit status."""
    results = Results()
    try:
        checks = (("formatting", formatting), ("scripts", scripts), ("licences", licences), ("checkpatch", checkpatch),
                  ("documentation", documentation), ("tree check", tree),
                  ("host tests", host_tests), ("fuzz", fuzz.check), ("kernel clippy", kernel_clippy), ("KUnit", kunit),
                  ("kselftests", kselftests), ("network tests", network_tests), ("outside judges", judges), ("outside drivers", strangers),
                  ("two VMs", two_vms))
        runner = prepare("tool root", "kernel source", "kernel tree", "device model", "selftests", "kernel", more=len(checks))
        for title, check in checks:
            with runner.step(title) as step:
                before = results.passed, results.failed
                check(step, results)
                step.note = f"{results.passed - before[0]} passed, {results.failed - before[1]} failed" + (f"; {step.note}" if step.note else "")
    except Failure as failure:
        results.add("set-up", False, str(failure))
    except Exception:  # whatever it is, the last line says that something failed
        results.add("the lab itself", False, traceback.format_exc())
    print(f"{results.passed} passed, {results.failed} failed")
    return 1 if results.failed or not results.passed else 0


