# SPDX-License-Identifier: GPL-2.0
"""Read KTAP: the results of KUnit, of doctests and of kselftests."""

import re
from dataclasses import dataclass, field

TIMESTAMP = re.compile(r"^\[\s*\d+\.\d+\] ?")
RESULT = re.compile(r"^(\s*)(ok|not ok) (\d+)\s*(?:- )?([^#]*?)\s*(?:#\s*(.*))?$")
PLAN = re.compile(r"^(\s*)1\.\.(\d+)\s*$")


@dataclass
class Result:
    name: str
    good: bool
    skipped: bool
    comment: str
    notes: list = field(default_factory=list)  # what the test said before the result


def parse(text):
    """Leaf results of KTAP in a kernel log or a test's output; returns (results, problems)."""
    results = []
    problems = []
    planned = {}
    seen = {}
    notes = []
    for line in text.split("\n"):
        line = TIMESTAMP.sub("", line.rstrip("\r"))
        if plan := PLAN.match(line):
            depth = len(plan[1])
            planned[depth] = int(plan[2])
            seen[depth] = 0
            continue
        if not (match := RESULT.match(line)):
            if line.startswith("#"):
                notes.append(line[1:].strip())
            continue
        depth = len(match[1])
        seen[depth] = seen.get(depth, 0) + 1
        # Results further in belong to this one: then it is a suite, not a leaf.
        inner = max((d for d in planned if d > depth), default=None)
        if inner is not None:
            if seen.get(inner, 0) < planned[inner]:
                problems.append(f"{match[4]}: {seen.get(inner, 0)} of {planned[inner]} results")
            for d in [d for d in planned if d > depth]:
                del planned[d]
                seen.pop(d, None)
            continue
        comment = match[5] or ""
        results.append(Result(match[4], match[2] == "ok", "SKIP" in comment, comment, notes))
        notes = []
    for depth, count in planned.items():
        if seen.get(depth, 0) < count:
            problems.append(f"{seen.get(depth, 0)} of {count} results")
    return results, problems
