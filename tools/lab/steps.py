# SPDX-License-Identifier: GPL-2.0
"""Steps with times and progress, one log file each, one sentence per failure."""

import errno
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

from paths import CACHE, LOGS


class Failure(Exception):
    """Something the user has to know, as one sentence that says what to do."""


def duration(seconds):
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 60} min {seconds % 60:02} s"


def need_space(gigabytes, what, where=CACHE):
    where.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(where).free / 1e9
    if free < gigabytes:
        raise Failure(
            f"{what} needs {gigabytes} GB in {where} and only {free:.1f} GB are free there: "
            "make room, or set ULP_DDP_CACHE to a directory on a larger disk."
        )


class Step:
    """One step while it runs: where its output goes and how far it is."""

    def __init__(self, title):
        self.title = title
        self.path = LOGS / (title.replace(" ", "-") + ".log")
        self.done = False
        self.skipped = False
        self.note = ""
        self.progress = ""
        self.started = time.monotonic()

    def up_to_date(self):
        self.skipped = True

    def output(self):
        """The log so far."""
        return self.path.read_text(errors="replace") if self.path.exists() else ""

    def capture(self, start, on_line=None):
        """Run start(stdout=, stderr=, text=), a Popen-like call, into the log; returns its status."""
        LOGS.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8", errors="replace") as log:
            with start(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as process:
                try:
                    for line in process.stdout:
                        log.write(line)
                        log.flush()
                        if on_line:
                            on_line(line)
                except BaseException:
                    process.kill()
                    raise
                return process.wait()


class Runner:
    """Numbers the steps and reports each on one line."""

    def __init__(self, total=0, quiet=False):
        self.total = total
        # Quiet: the standard output belongs to something else.
        self.out = sys.stderr if quiet else sys.stdout
        self.quiet = quiet
        self.number = 0

    def _head(self, step):
        number = f"[{self.number}/{self.total}] " if self.total else ""
        return f"{number}{step.title} "

    def _report(self, step):
        """Progress while the step runs: in place on a terminal, else a line now and then."""
        last = 0.0
        while not step.done:
            time.sleep(0.5)
            seconds = time.monotonic() - step.started
            if step.done or seconds < 2:
                continue
            if self.out.isatty():
                print(f"\r\033[K{self._head(step)}... {step.progress} {duration(seconds)}", end="", flush=True, file=self.out)
            elif seconds - last >= 30:
                last = seconds
                print(f"{self._head(step)}... {step.progress} {duration(seconds)}", flush=True, file=self.out)

    @contextmanager
    def step(self, title):
        self.number += 1
        step = Step(title)
        LOGS.mkdir(parents=True, exist_ok=True)
        step.path.unlink(missing_ok=True)
        reporter = threading.Thread(target=self._report, args=(step,), daemon=True)
        reporter.start()
        clear = "\r\033[K" if self.out.isatty() else ""
        try:
            yield step
        except BaseException as error:
            step.done = True
            reporter.join()
            print(f"{clear}{self._head(step)}FAILED after {duration(time.monotonic() - step.started)}", flush=True, file=self.out)
            if isinstance(error, (Failure, OSError)) and ("No space left on device" in step.output() or getattr(error, "errno", None) == errno.ENOSPC):
                error = Failure(f"The disk under {CACHE} ran full: make room, or set ULP_DDP_CACHE to a directory on a larger disk.")
            if isinstance(error, Failure) and step.path.exists():
                raise Failure(f"{error}\nThe log of this step: {step.path}") from error
            raise error
        step.done = True
        reporter.join()
        if step.skipped and self.quiet and not step.note:
            return
        text = "up to date" if step.skipped else duration(time.monotonic() - step.started)
        print(f"{clear}{self._head(step)}{'.' * max(3, 40 - len(self._head(step)))} {text}", flush=True, file=self.out)
        if step.note:
            print(f"      {step.note}", flush=True, file=self.out)
