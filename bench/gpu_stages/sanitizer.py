# SPDX-License-Identifier: Apache-2.0
"""compute-sanitizer on the cases of the ops where most can go wrong: memcheck of each, then racecheck."""

import glob
import re
import shutil

from gpu_stages import gtest

NAME, TITLE, SHARE = "sanitizer", "memcheck and racecheck", 50

# Matrix products, convolutions, attention, norms; then the rest.
FIRST = re.compile(r"/(linear|conv2d|attention|group_norm|batch_norm)")


def tool():
    folders = sorted([*glob.glob("/usr/local/cuda*/bin"), *glob.glob("/usr/local/cuda*/compute-sanitizer"),
                      *glob.glob("/opt/nvidia/*/*/compute-sanitizer")])  # fmt: skip
    return next(filter(None, (shutil.which("compute-sanitizer", path=path) for path in [None, *folders])), None)


def missing(s):
    return s.need() + ([] if tool() else ["compute-sanitizer"])


def jobs(tests):
    """[(check, filter)]: of the ops that come first both checks, then of the others."""
    ops = gtest.filters([t for t in tests if t[0].startswith("Ops/")])
    first = [op for op in ops if FIRST.search(op)]
    rest = [op for op in ops if op not in first]
    return [(check, op) for part in (first, rest) for check in ("memcheck", "racecheck") for op in part]


def errors(output):
    """Of its last summary; None where there is none. racecheck counts hazards."""
    found = re.findall(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard", output)
    return int(found[-1][0] or found[-1][1]) if found else None


def rehearse(s):
    return f"{len(jobs(gtest.tests_of(s)))} checks, with {tool() or 'no compute-sanitizer'}"


def one(s, job):
    check, op = job
    if s.left() <= 0:
        s.say(check=check, test=op, not_run="no time left")
        return
    before = [tool(), "--tool", check, "--error-exitcode", "99", "--launch-timeout", "0"]
    counts, output = gtest.run(s, op, 300, before)
    if s.left() <= 0 and errors(output) is None:
        s.say(check=check, test=op, not_run="its time was over")
        return
    found = errors(output)
    s.say(check=check, test=op, errors=found, failed=counts["failed"], seconds=counts["seconds"], says="" if found == 0 else output[-3000:])


def work(s):
    gtest.side_by_side(lambda job: one(s, job), jobs(gtest.tests_of(s)), max(1, gtest.at_once() // 2))
