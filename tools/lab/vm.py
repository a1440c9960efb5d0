# SPDX-License-Identifier: GPL-2.0
"""Boot the built kernel in QEMU with the tool root as its read-only root."""

import argparse
import os
import re
import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import kernel
import model
import toolroot
from paths import BUILD, DEBUG, LOGS, MODULES, SELFTESTS
from steps import Failure

# What the kernel prints when something in it went wrong.
COMPLAINTS = re.compile(
    r"^(?:\[[ .0-9]+\] )?(?:BUG[: ]|WARNING: |Oops|general protection fault|Kernel panic|KASAN|UBSAN|unreferenced object"
    r"|DMA-API: (?!preallocated |debugging )"
    r"|INFO: task .* blocked|INFO: .*lock|INFO: trying to register non-static key|page_pool_release_retry\(\) stalled"
    r"|unregister_netdevice: waiting|ref_tracker: )"
)


CAPTURE = "capture.pcapng"


@dataclass
class Guest:
    """What to boot."""

    run: str | None = None  # commands, or None for a shell
    share: str | None = None  # directory that appears at /share
    ports: int = 2  # ports of the device model
    smp: int = 2
    target_smp: int = 2  # of the second VM
    mem: str = "2G"
    timeout: int = 600  # seconds until the VM is taken to hang
    append: str = ""  # more kernel arguments
    model_args: str = ""
    capture: str | None = None  # pcapng file for all frames of all ports
    console: str = "split"  # split: commands' output apart from the console; shared; shell
    disks: tuple = ()  # images under BUILD; the guest's writes to them are thrown away
    faults: str | None = None  # fault plan of the device model
    topology: dict | None = None  # settings of guest/topology, or None for a bare VM
    files: dict = field(default_factory=dict)  # name: text, appear in /run/lab of the guest

    def __post_init__(self):
        if DEBUG:
            self.timeout *= 5
            self.mem = "4G"
            # identify_cpu() clears the capabilities for a moment. An interrupt that comes then finds four levels of page tables
            # where there are five, and KASAN takes a good address for a wild one.
            self.append += " no5lvl"


@dataclass
class Outcome:
    status: int  # of the commands, or of QEMU if they did not end
    console: str  # the kernel's messages (split and shell consoles)
    timed_out: bool = False
    ended: bool = True  # the commands came to their end
    results: dict = field(default_factory=dict)  # name: text, what the guest left in /run/lab/results
    target_console: str = ""  # of the second VM, if there is one
    target_ended: bool = False  # the second VM ended before the first

    def complaints(self):
        return [line for line in (self.console + "\n" + self.target_console).split("\n") if COMPLAINTS.match(line.strip())]


def tail(console, lines=30):
    return "\n".join(console.rstrip().split("\n")[-lines:])


def accelerator():
    accel = os.environ.get("ACCEL") or "tcg"
    if accel == "kvm":
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            raise Failure("ACCEL=kvm needs a readable and writable /dev/kvm, which this machine does not give; leave ACCEL out.")
        return "kvm"
    return "tcg,thread=multi" if accel == "tcg" else accel


def exports(variables, empty=False):
    """Shell lines that set variables; those without a value only if empty."""
    return "".join(f"export {name}={shlex.quote(str(value))}\n" for name, value in variables.items() if value or empty)


def text_of(path):
    return path.read_text(errors="replace") if path.exists() else ""


def execute_here(script, binds):
    """The guest's output goes to ours."""
    return toolroot.run(script, binds, check=False).returncode


def boot(guest, execute=execute_here):
    """Boot, run, power off. execute runs QEMU's script in the tool root and returns its status."""
    if not kernel.IMAGE.exists() or not (MODULES / "lib").is_dir():
        raise Failure("No kernel has been built yet: run make kernel.")
    if guest.ports and not model.BINARY.exists():
        raise Failure("No device model has been built yet: run make model.")
    if guest.share and not Path(guest.share).is_dir():
        raise Failure(f"SHARE={guest.share} is not a directory.")
    with tempfile.TemporaryDirectory(prefix="vm-", dir=BUILD) as tmp:
        lab = Path(tmp)
        (lab / "results").mkdir()
        for name, text in guest.files.items():
            (lab / name).write_text(text)
        if guest.faults is not None:
            (lab / "faults.toml").write_text(guest.faults)
        if guest.run is not None:
            (lab / "run").write_text(guest.run + "\n")
        two = (guest.topology or {}).get("TOPO") == "two"
        if guest.topology is not None:
            (lab / "topology").write_text(exports(guest.topology))
        if two:
            (lab / "target").mkdir()
            (lab / "target/topology").write_text(exports({**guest.topology, "ROLE": "target"}))
        if guest.console == "shell":
            size = shutil.get_terminal_size()
            (lab / "size").write_text(f"{size.lines} {size.columns}\n")
        binds = [(lab, "/run/lab")]
        if guest.share:
            binds.append((Path(guest.share).resolve(), "/share"))
        if SELFTESTS.is_dir():
            binds.append((SELFTESTS, "/selftests"))
        settings = {
            "PORTS": guest.ports, "SMP": guest.smp, "MEM": guest.mem, "TIMEOUT": guest.timeout, "APPEND": guest.append,
            "MODEL_ARGS": " ".join((
                guest.model_args, "--faults /run/lab/faults.toml" if guest.faults is not None else "",
                f"--capture /run/lab/{CAPTURE}" if guest.capture else "",
            )),
            "ACCEL": accelerator(), "CONSOLE": guest.console, "SHARE": guest.share or "",
            "DISKS": " ".join(f"/kernel/{Path(disk).relative_to(BUILD)}" for disk in guest.disks),
            "VMS": 2 if two else 1, "TARGET_SMP": guest.target_smp,
        }
        sys.stdout.flush()
        status = execute(exports(settings, empty=True) + "exec bash /repo/tools/lab/launch.sh", binds)
        LOGS.mkdir(parents=True, exist_ok=True)
        for source, name in (("model.log", "model.log"), ("console.log", "console.log"), ("target/console.log", "target-console.log")):
            (LOGS / name).unlink(missing_ok=True)
            if (lab / source).exists():
                shutil.copyfile(lab / source, LOGS / name)
        if guest.capture and (lab / CAPTURE).exists():
            shutil.move(lab / CAPTURE, Path(guest.capture).absolute())
        outcome = Outcome(
            status=status, console=text_of(lab / "console.log"), timed_out=status == 124, ended=False,
            results={path.name: path.read_text(errors="replace") for path in (lab / "results").iterdir() if path.is_file()},
            target_console=text_of(lab / "target/console.log"), target_ended=(lab / "target/ended").exists(),
        )
        ended = lab / "status"
        if ended.exists() and not outcome.timed_out and not outcome.target_ended:
            outcome.ended = True
            outcome.status = int(ended.read_text())
        elif outcome.status == 0:
            outcome.status = 125
        return outcome


def explain(outcome, timeout):
    """The sentence for a VM that did not come to its end."""
    if outcome.target_ended:
        how = "VM's kernel panicked" if "Kernel panic" in outcome.target_console else "VM ended by itself"
        what = f"The target {how}, so the initiator was ended too"
    elif outcome.timed_out:
        what = f"The VM did not finish within {timeout} s and was ended"
        if outcome.target_console:
            what += ", and the target VM with it"
    elif "Kernel panic" in outcome.console:
        what = "The VM's kernel panicked"
    else:
        what = "The VM ended before its commands did"
    text = f"{what}; console and device model logs are in {LOGS}."
    if outcome.console:
        text += f" The console's last lines:\n{tail(outcome.console)}"
    if outcome.target_console:
        text += f"\nThe target's console's last lines:\n{tail(outcome.target_console)}"
    return text


def topology():
    """Settings of the topology from the variables of make vm."""
    settings = {name: os.environ.get(name) or value for name, value in (("DRIVER", "mlx5_rs"), ("HOST", "rs"), ("TOPO", "netns"))}
    if settings["TOPO"] not in ("netns", "two"):
        raise Failure(f"TOPO={settings['TOPO']} is not known; it is netns (one VM, target in a network namespace) or two (target in a VM of its own).")
    if settings["DRIVER"] not in ("mlx5_rs", "mlx5_core", "veth"):
        raise Failure(f"DRIVER={settings['DRIVER']} is not known; it is mlx5_rs, mlx5_core or veth.")
    if settings["DRIVER"] == "veth" and os.environ.get("FAULTS"):
        raise Failure("FAULTS= is for the device model, which DRIVER=veth does without.")
    if settings["DRIVER"] == "veth" and settings["TOPO"] == "two":
        raise Failure("TOPO=two joins its VMs by the device model's ports, so DRIVER=veth is not possible there.")
    if settings["HOST"] not in ("rs", "c"):
        raise Failure(f"HOST={settings['HOST']} is not known; it is rs or c.")
    return settings


def faults():
    """Text of the fault plan that FAULTS names."""
    if not (name := os.environ.get("FAULTS")):
        return None
    try:
        return Path(name).read_text()
    except OSError as error:
        raise Failure(f"FAULTS={name}: {error.strerror}.") from None


def ports(settings):
    return 0 if settings["DRIVER"] == "veth" else 2


def interactive():
    """make vm: the demo topology with a shell, or with RUN= in it."""
    settings = topology()
    run = os.environ.get("RUN") or None
    guest = Guest(
        run=run, share=os.environ.get("SHARE") or None, ports=ports(settings), topology=settings, faults=faults(),
        console="split" if run else "shell", timeout=int(os.environ.get("TIMEOUT") or (1800 if run else 1 << 30)),
        capture=os.environ.get("CAPTURE") or None,
    )
    outcome = boot(guest)
    if not outcome.ended and (run or not outcome.console):
        raise Failure(explain(outcome, guest.timeout))
    return outcome.status if run else 0


def main(argv):
    """A bare VM for development: no topology, commands share the console with the kernel."""
    parser = argparse.ArgumentParser(prog="vm")
    parser.add_argument("--run")
    parser.add_argument("--share")
    parser.add_argument("--ports", type=int, default=2)
    parser.add_argument("--smp", type=int, default=2)
    parser.add_argument("--mem", default="2G")
    parser.add_argument("--timeout", type=int, default=600)
    parser.add_argument("--append", default="")
    parser.add_argument("--model-args", default="")
    parser.add_argument("--topology", action="store_true", help="set up the topology of make vm first")
    args = parser.parse_args(argv)
    outcome = boot(Guest(
        run=args.run, share=args.share, ports=args.ports, smp=args.smp, mem=args.mem, timeout=args.timeout, append=args.append,
        model_args=args.model_args, faults=faults(), console="shared", topology=topology() if args.topology else None,
    ))
    return outcome.status
