# SPDX-License-Identifier: GPL-2.0
"""The kernel's own tests of network drivers, unmodified, on the device model.

Both drivers run the same tests on the same device; what each passes is kept
in two tables beside the driver's documentation. A later run is compared with
them.
"""

import csv
import fnmatch
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import ktap
import toolroot
import vm
from paths import CACHE, PRISTINE, REPO, SELFTESTS
from source import STAMP
from steps import Failure, need_space

DRIVERS = ("mlx5_core", "mlx5_rs")
OUTCOMES = ("pass", "fail", "skip")
TESTS = (
    "ping", "stats", "queues", "gro", "napi_id", "napi_threaded", "hds", "ring_reconfig",
    "hw/csum", "hw/tso", "hw/uso", "hw/rss_api", "hw/rss_ctx", "hw/rss_drv", "hw/rss_input_xfrm", "hw/toeplitz", "hw/ntuple", "hw/irq",
    "hw/gro_hw", "hw/pp_alloc_fail", "hw/ethtool_std_stats", "hw/ethtool_rmon",
)
# Those that are shell scripts; the others are Python programs.
SHELL_TESTS = ("hw/ethtool_std_stats", "hw/ethtool_rmon")
# Those that make check runs: quick, and not about time.
QUICK = ("queues", "napi_id", "hw/irq")
DIRECTORY = "tools/testing/selftests/drivers/net"
TABLES = REPO / "Documentation/networking/device_drivers/ethernet/mellanox"
# Seconds that one test may take.
TIMEOUT = 2400
# hw/rss_ctx wants ten queues for its largest case, hw/toeplitz two CPUs beside eight queues.
CPUS = 10

# The tests expect to be built where they lie, with the source around them (its top is known by MAINTAINERS). What they need of
# the pinned source is copied, so that nothing is built in it.
BUILD_TESTS = """
set -e
cd /mnt
cp -a --parents MAINTAINERS Documentation/netlink include/uapi scripts /selftests
cp -a --parents tools/arch tools/build tools/include tools/lib tools/net tools/scripts tools/testing/selftests /selftests
make -s -C /mnt O=/tmp/headers headers_install INSTALL_HDR_PATH=/selftests/usr
cd /selftests/tools/testing/selftests
for part in net/lib:csum,gro,xdp_helper,xdp_dummy.bpf.o,xdp_native.bpf.o drivers/net:napi_id_helper drivers/net/hw:toeplitz; do
    directory=$PWD/${part%:*}
    IFS=, read -ra names <<< "${part#*:}"
    make -s -C "$directory" "${names[@]/#/$directory/}"
done
"""


def build(step):
    """Copy the tests out of the pinned source and build their programs; under a temporary name until that is done."""
    stamp = SELFTESTS / "stamp"
    wanted = (PRISTINE / STAMP).read_text() + BUILD_TESTS
    if stamp.exists() and stamp.read_text() == wanted:
        step.up_to_date()
        return
    need_space(1, "The kernel's selftests")
    with toolroot.locked("selftests"):
        fresh = CACHE / "selftests.new"
        toolroot.remove(fresh)
        fresh.mkdir()
        if step.capture(lambda **pipes: toolroot.start(BUILD_TESTS, [(PRISTINE, "/mnt"), (fresh, "/selftests")], **pipes)):
            raise Failure("The kernel's selftests do not build.")
        (fresh / "stamp").write_text(wanted)
        toolroot.remove(SELFTESTS)
        os.rename(fresh, SELFTESTS)


def selected():
    """The tests that TESTS= names, by default all."""
    names = (os.environ.get("TESTS") or " ".join(TESTS)).split()
    for name in names:
        if name not in TESTS:
            raise Failure(f"TESTS={name} is not known; the tests are: {' '.join(TESTS)}.")
    return [name for name in TESTS if name in names]


def drivers():
    """The driver that DRIVER= names, by default both in turn."""
    driver = os.environ.get("DRIVER")
    if driver and driver not in DRIVERS:
        raise Failure(f"DRIVER={driver} is not known here; it is {' or '.join(DRIVERS)}.")
    return (driver,) if driver else DRIVERS


def reason(result):
    """Why a case did not pass, in a line."""
    if result.comment:
        return re.sub(r"^(SKIP|XFAIL)\s*", "", result.comment)
    failed = [note for note in result.notes if note.startswith("Check failed")]
    if failed:
        return " ".join(failed[0].split())[:200]
    # Of an exception its name, or the last that a failed command said.
    said = [note.partition("Exception|")[2].strip() for note in result.notes if "Exception|" in note]
    named = [line for line in said if re.match(r"[\w.]+: ", line) and "Command failed" not in line]
    last = ([line for line in said if line] or result.notes or ["no reason given"])[-1]
    if not any("CmdExitFailure" in line for line in said) and named:
        last = named[-1]
    return " ".join(re.sub(r"^(STDERR: )?(/\S*/)?", "", last).split())[:200]


@dataclass
class Case:
    outcome: str  # one of OUTCOMES
    reason: str = ""


def cases(test, outcome, output, complaints):
    """What a run of a test says: its cases by name."""
    found, problems = ktap.parse(output)
    prefix = Path(test).name + "."
    results = {}
    for result in found:
        skipped = result.skipped or result.comment.startswith("XFAIL")
        state = "skip" if skipped else "pass" if result.good else "fail"
        results[result.name.removeprefix(prefix)] = Case(state, "" if state == "pass" else reason(result))
    if not outcome.ended or problems or not found:
        last = vm.tail(outcome.console, 1) if not outcome.ended else output.rstrip().split("\n")[-1]
        results["end of the test"] = Case("fail", "the test did not come to its end: " + last[-150:])
    if complaints:
        results["kernel log"] = Case("fail", complaints[0].strip())
    return results


def command(test, prefix=""):
    """Shell line that runs a test in the guest; the prefix goes before its program."""
    directory, name = os.path.split(test)
    # What the tests allow a slow machine.
    settings = "KSFT_MACHINE_SLOW=yes PATH=/opt/repo/tools/lab/guest/bin:$PATH"
    program = f"bash ./{name}.sh" if test in SHELL_TESTS else f"python3 -B ./{name}.py"
    return f"(cd /opt/selftests/{DIRECTORY}/{directory} && {settings} {prefix}{program})"


def run_test(step, driver, test):
    """Run one test in a VM of its own; returns its cases."""
    guest = vm.Guest(
        run=command(test),
        ports=2, smp=CPUS, timeout=TIMEOUT, topology={"DRIVER": driver, "HOST": "rs"},
    )
    at = len(step.output())
    outcome = vm.boot(guest, lambda script, binds: step.capture(lambda **pipes: toolroot.start(script, binds, **pipes)))
    step.path.with_suffix(".console.log").write_text(outcome.console)
    return cases(test, outcome, step.output()[at:], outcome.complaints())


class Record:
    """What each driver passed, as the tables in the documentation say it."""

    COUNTS = "mlx5_rs_selftests.csv"
    CASES = "mlx5_rs_selftest_cases.csv"

    def __init__(self, directory=TABLES):
        self.directory = directory
        self.counts = {}  # (test, driver): Counter of outcomes
        self.rows = []  # (test, names or patterns, {driver: outcome}, reason) of what did not pass
        if (directory / self.COUNTS).exists():
            for test, *numbers in self.read(self.COUNTS):
                for index, number in enumerate(numbers):
                    if number != "-":
                        counter = self.counts.setdefault((test, DRIVERS[index // len(OUTCOMES)]), Counter())
                        counter[OUTCOMES[index % len(OUTCOMES)]] = int(number)
            for test, names, *outcomes, why in self.read(self.CASES):
                self.rows.append((test, names.split(" "), by_driver(outcomes), why))

    def read(self, name):
        with open(self.directory / name, newline="", encoding="utf-8") as file:
            return list(csv.reader(file))[1:]

    def row(self, test, name):
        for row in self.rows:
            if row[0] == test and any(fnmatch.fnmatchcase(name.replace(" ", "_"), pattern) for pattern in row[1]):
                return row
        return None

    def outcome(self, test, name, driver):
        """pass, fail or skip as recorded; None for a test that was not run."""
        if (test, driver) not in self.counts:
            return None
        row = self.row(test, name)
        return row[2][driver] if row else "pass"

    def update(self, driver, test, results):
        """Take over what a driver did in a test."""
        (other,) = set(DRIVERS) - {driver}
        names = {name.replace(" ", "_"): case for name, case in results.items()}
        groups = {}
        for name, case in names.items():
            outcomes = {driver: case.outcome, other: self.outcome(test, name, other) or "-"}
            if not {"fail", "skip"} & set(outcomes.values()):
                continue
            row = self.row(test, name)
            why = case.reason
            # A recorded reason may be a person's finding: of a failure it stays as long as there is one, of others where the test has none.
            if row and (case.outcome == "pass" or not why or case.outcome == "fail" and "fail" in row[2].values()):
                why = row[3]
            groups.setdefault((tuple(outcomes[d] for d in DRIVERS), why), []).append(name)
        # A run that ended early says nothing about the cases that it did not come to.
        met = {id(self.row(test, name)) for name in names}
        kept = [
            row if row[0] != test else (*row[:2], {**row[2], driver: "-"}, row[3]) for row in self.rows if row[0] != test or id(row) not in met
        ]
        self.counts[test, driver] = Counter(case.outcome for case in results.values())
        self.rows = kept + [
            (test, patterns(members, names), by_driver(outcomes), why) for (outcomes, why), members in groups.items()
        ]

    def write(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.directory / self.COUNTS, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["Test"] + [f"{driver} {outcome}" for driver in DRIVERS for outcome in OUTCOMES])
            for test in TESTS:
                counts = [self.counts.get((test, driver)) for driver in DRIVERS]
                if any(counts):
                    table.writerow([test] + [c[outcome] if c else "-" for c in counts for outcome in OUTCOMES])
        with open(self.directory / self.CASES, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["Test", "Cases", *DRIVERS, "Reason"])
            for test, names, outcomes, why in sorted(self.rows, key=lambda row: TESTS.index(row[0])):
                table.writerow([test, " ".join(names), *(outcomes[driver] for driver in DRIVERS), why])

    def worse(self, driver, test, results):
        """The cases that do worse than recorded, with what is to say about them."""
        wrong = {}
        for name, case in results.items():
            before = self.outcome(test, name, driver)
            if case.outcome == "fail" and before != "fail" or case.outcome == "skip" and before == "pass":
                wrong[name] = f"{case.outcome}, was {before or 'not run'}: {case.reason}"
        return wrong

    def behind(self, driver, test, results):
        """The cases that our driver does not pass although the kernel's own does."""
        if driver != "mlx5_rs":
            return {}
        return {
            name: f"{case.outcome}, mlx5_core passes: {case.reason}" for name, case in results.items()
            if case.outcome != "pass" and self.outcome(test, name, "mlx5_core") == "pass"
        }


def by_driver(values):
    return {driver: values[index] for index, driver in enumerate(DRIVERS)}


def patterns(members, names):
    """Some of the cases by name, or by the start of their names where no other case starts so."""
    common = os.path.commonprefix(members)
    if len(members) < 3:
        return members
    if common and not any(name.startswith(common) for name in names if name not in members):
        return [common + "*"]
    groups = {}
    for name in members:
        groups.setdefault(name[len(common):len(common) + 1], []).append(name)
    return [pattern for group in groups.values() for pattern in patterns(group, names)]


def summary(results):
    counts = Counter(case.outcome for case in results.values())
    return f"{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped"


def run(runner):
    """All selected tests with each selected driver; returns the exit status."""
    record = Record()
    wrong = []
    for driver in drivers():
        for test in selected():
            with runner.step(f"{driver} {Path(test).name}") as step:
                results = run_test(step, driver, test)
                step.note = summary(results)
            found = {**record.worse(driver, test, results), **record.behind(driver, test, results)}
            wrong += [f"{driver}: {test}: {name}: {why}" for name, why in found.items()]
            record.update(driver, test, results)
            record.write()
    for line in wrong:
        print(line)
    print(f"{len(wrong)} not as they should be; the tables are in {record.directory.relative_to(REPO)}/{record.COUNTS} and {record.CASES}")
    return 1 if wrong else 0
