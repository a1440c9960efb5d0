# SPDX-License-Identifier: GPL-2.0
"""make bench-nic: mlx5_core and mlx5_rs in turn on one device model, target in a second VM.

The initiator has two ports, one for each driver, so that nothing but the
driver's name changes between the two measurements of a pair, which lie seconds
apart: a machine that is slower for a while is so for both.
"""

import json
import os
import statistics
import time
from math import comb
from pathlib import Path

import toolroot
import vm
from paths import BUILD
from steps import Failure

DRIVERS = ("mlx5_core", "mlx5_rs")
# Ports 0 and 1 are the initiator's, 2 and 3 the target's.
PORTS = 4
WIRES = "--wire 0-2 --wire 1-3"
OUT = BUILD / "bench"
MIB = 2**20


def number(name, default):
    text = os.environ.get(name) or str(default)
    if not text.isdigit() or int(text) < 1:
        raise Failure(f"{name}={text} is not a positive number.")
    return int(text)


def plan():
    """Length of a measurement in seconds, and how often both drivers take their turn."""
    quick = bool(os.environ.get("QUICK"))
    return {"drivers": DRIVERS, "seconds": number("BENCH_SECONDS", 2), "repetitions": number("BENCH_REPETITIONS", 2 if quick else 12)}


def descendants(root):
    """Process IDs below a process; it is the lab's own."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            pass  # ended meanwhile
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


class Meter:
    """CPU time of the threads that matter: vCPUs of both VMs, and the device model's."""

    def __init__(self):
        self.root = None
        self.processes = {}
        self.samples = {}

    def start(self, *args, **kwargs):
        process = toolroot.start(*args, **kwargs)
        self.root = process.pid
        return process

    def find(self):
        for pid in descendants(self.root):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"/nicmodel"):
                self.processes["model"] = pid
            for name in ("initiator", "target"):
                if words[0] == b"qemu-system-x86_64" and f"{name},debug-threads=on".encode() in words:
                    self.processes[name] = pid

    def sample(self):
        """Seconds of CPU time by process and thread name, and the time."""
        if len(self.processes) < 3:
            self.find()
        used = {"time": time.monotonic()}
        for name, pid in self.processes.items():
            for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
                head, _, rest = stat.read_text().rpartition(")")
                thread = head.partition("(")[2]
                fields = rest.split()
                key = f"{name} vcpu" if thread.startswith("CPU ") else f"{name} {thread}"
                used[key] = used.get(key, 0) + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return used

    def line(self, text):
        """Takes the guest's marks."""
        word, _, which = text.strip().partition(" ")
        if word in ("@begin", "@end"):
            self.samples[int(which), word] = self.sample()

    def between(self, which):
        """CPU seconds of the initiator's vCPUs and of the model, the share of time that the model's busiest thread worked, in a measurement."""
        before, after = self.samples[which, "@begin"], self.samples[which, "@end"]
        used = {key: after[key] - before.get(key, 0) for key in after}
        model = {key: value for key, value in used.items() if key.startswith("model ")}
        return {"vcpu": used["initiator vcpu"], "model": sum(model.values()), "busy": max(model.values()) / used["time"]}


def run(step):
    """Boot both VMs and measure; returns what the guest measured, with CPU times."""
    settings = {**vm.topology(), "TOPO": "two", "DRIVER": "mlx5_core", "TARGET_DRIVER": "mlx5_core", "HOST": "rs"}
    wanted = plan()
    timeout = 300 + wanted["repetitions"] * len(DRIVERS) * 12 * (wanted["seconds"] + 15)
    meter = Meter()
    guest = vm.Guest(
        run="/opt/repo/tools/lab/guest/bench", topology=settings, files={"bench.json": json.dumps(wanted)}, timeout=timeout,
        ports=PORTS, model_args=WIRES, smp=2, target_smp=1 if (os.cpu_count() or 1) < 6 else 2,
    )

    def on_line(line):
        meter.line(line)
        if line.startswith("# "):
            step.progress = line[2:].strip()[:90]

    outcome = vm.boot(guest, lambda script, binds: step.capture(lambda **pipes: meter.start(script, binds, **pipes), on_line))
    if not outcome.ended:
        raise Failure(vm.explain(outcome, timeout))
    if outcome.status or "bench.json" not in outcome.results:
        raise Failure("The benchmark failed in the guest:\n" + "\n".join(step.output().rstrip().split("\n")[-25:]))
    if complaints := outcome.complaints():
        raise Failure(f"A guest's kernel complained ({vm.LOGS}):\n" + "\n".join(complaints[:5]))
    measured = json.loads(outcome.results["bench.json"])
    for which, result in enumerate(measured["results"]):
        result.update(meter.between(which))
    return {**wanted, **measured}


def lines(measured):
    """(title, unit, higher is better, values of each driver by repetition) of all that is reported."""
    values = {}
    for result in measured["results"]:
        def put(title, unit, higher, value, driver=result["driver"]):
            values.setdefault((title, unit, higher), {}).setdefault(driver, []).append(value)

        name = result["name"]
        if "bytes" in result:
            put(name, "MiB/s", True, result["rate"])
            put(f"{name}: vCPU time", "ms/MiB", False, 1e3 * result["vcpu"] / (result["bytes"] / MIB))
        elif "packets" in result:
            put(name, "packets/s", True, result["rate"])
            put(f"{name}: vCPU time", "us/packet", False, 1e6 * result["vcpu"] / result["packets"])
        elif "p50" in result:
            put(f"{name}, p50", "us", False, result["p50"])
            put(f"{name}, p99", "us", False, result["p99"])
        else:
            put(name, "connections/s", True, result["rate"])
    return [(*key, by_driver) for key, by_driver in values.items()]


def ratios(higher, by_driver):
    """mlx5_rs by mlx5_core for each repetition; above 1 is better."""
    core, rs = (by_driver[driver] for driver in DRIVERS)
    return [(b / a if higher else a / b) for a, b in zip(core, rs, strict=True) if a and b]


def interval(values):
    """Where the true median is with a probability of 95 %, whatever the distribution: two of the values, by their order; all, where they are few."""
    values = sorted(values)
    beyond, chance = 0, 0.5 ** len(values)
    while chance * 2 <= 0.05:
        beyond += 1
        chance += comb(len(values), beyond) * 0.5 ** len(values)
    beyond = max(beyond, 1)
    return values[beyond - 1], values[-beyond]


def report(measured):
    """The tables."""
    text = [
        f"mlx5_rs against mlx5_core: {measured['channels']} channel(s), {measured['repetitions']} turns of each, {measured['seconds']} s per measurement.",
        "Medians; the ratio is that of a turn, above 1 means that mlx5_rs is better. Its median is between the next two columns with a probability",
        "of 95 %; then the lowest and the highest ratio.", "",
        f"{'':44}{'mlx5_core':>12}{'mlx5_rs':>12} {'unit':14}{'ratio':>7}{'from':>8}{'to':>7}{'lowest':>8}{'highest':>8}",
    ]
    for title, unit, higher, by_driver in lines(measured):
        each = ratios(higher, by_driver)
        core, rs = (statistics.median(by_driver[driver]) for driver in DRIVERS)
        low, high = interval(each)
        text.append(
            f"{title:44}{core:>12,.1f}{rs:>12,.1f} {unit:14}{statistics.median(each):>7.3f}{low:>8.3f}{high:>7.3f}{min(each):>8.3f}{max(each):>8.3f}"
        )
    text += ["", "The device model: CPU time of all its threads, and how much of the time its busiest thread worked.", "",
             f"{'':44}{'mlx5_core':>12}{'mlx5_rs':>12} {'unit':14}{'busy, in percent':>20}"]
    names = dict.fromkeys(result["name"] for result in measured["results"] if "bytes" in result or "packets" in result)
    for name in names:
        cost, busy = [], []
        for driver in DRIVERS:
            rows = [row for row in measured["results"] if row["name"] == name and row["driver"] == driver]
            per_mib = "bytes" in rows[0]
            cost.append(statistics.median(1e3 * row["model"] / (row["bytes"] / MIB) if per_mib else 1e6 * row["model"] / row["packets"] for row in rows))
            busy.append(statistics.median(100 * row["busy"] for row in rows))
        unit = "ms/MiB" if per_mib else "us/packet"
        text.append(f"{name:44}{cost[0]:>12,.2f}{cost[1]:>12,.2f} {unit:14}{busy[0]:>10.0f}{busy[1]:>10.0f}")
    return "\n".join(text)


def plot(measured):
    """gnuplot's commands for the ratios as SVG."""
    rows = list(reversed(lines(measured)))
    data, labels = [], []
    for at, (title, _, higher, by_driver) in enumerate(rows):
        each = ratios(higher, by_driver)
        low, high = interval(each)
        data.append(f"{statistics.median(each):.4f} {at} {low:.4f} {high:.4f}")
        labels.append(f'"{title}" {at}')
    height = 90 + 22 * len(rows)
    return "\n".join((
        f'set terminal svg size 1000,{height} font "sans,12" background "white"', "set output '/kernel/bench/bench-nic.svg'",
        'set title "mlx5\\\\_rs against mlx5\\\\_core on the device model: ratio, above 1 is better"', f"set yrange [-1:{len(rows)}]",
        f"set ytics ({', '.join(labels)})", "set grid x", "set key off", "$ratios << END", *data, "END",
        "set arrow 1 from 1,graph 0 to 1,graph 1 nohead lw 2 lc rgb 'black'",
        "set arrow 2 from 0.97,graph 0 to 0.97,graph 1 nohead dashtype 2 lc rgb 'red'",
        "plot $ratios using 1:2:3:4 with xerrorbars pointtype 7 pointsize 0.7 lc rgb 'navy'", "",
    ))


def publish(measured):
    """Print the report and leave it, the plot and all numbers in OUT."""
    OUT.mkdir(parents=True, exist_ok=True)
    text = report(measured)
    (OUT / "bench-nic.txt").write_text(text + "\n")
    (OUT / "bench-nic.json").write_text(json.dumps(measured, indent=1))
    (OUT / "bench-nic.gnuplot").write_text(plot(measured))
    if toolroot.run("gnuplot /kernel/bench/bench-nic.gnuplot", check=False).returncode:
        raise Failure(f"gnuplot could not draw {OUT / 'bench-nic.gnuplot'}.")
    print(f"\n{text}\n\nThe same as text, plot and numbers: {OUT}/bench-nic.txt, .svg, .json")
