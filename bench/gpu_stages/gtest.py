# SPDX-License-Identifier: Apache-2.0
"""Kernel tests, each in a process of its own: what GoogleTest lists and reports, and crashes and hangs beside it."""

import concurrent.futures
import json
import os
import re
import tempfile

OURS = "Ops/Cuda*:Cuda*"  # of device cuda; the cases that they run have tests of their own, for the CPU
WORDS = re.compile(r"Words|Tile|Gemm")  # suites on words and tiles, bit for bit
COLLECTIVES = re.compile(r"Collectives|Nccl")


def listed(text):
    """Of --gtest_list_tests: [(suite, test)]"""
    found, suite = [], None
    for line in text.splitlines():
        if re.match(r"\S+\.(\s|$)", line):
            suite = line.split(".")[0]
        elif suite and line.startswith("  "):
            found.append((suite, line.split("#")[0].strip()))
    return found


def filters(tests):
    """One for each process: of the kernels' cases, which are parametrised, one an op; else one a suite."""
    return list(dict.fromkeys(f"{suite}.{test}" if "/" in suite else f"{suite}.*" for suite, test in tests))


def summary_of(report):
    """Of gtest's JSON: counts, and what failed."""
    counts = {"passed": 0, "skipped": 0, "failed": []}
    for suite in report["testsuites"]:
        for test in suite["testsuite"]:
            if test.get("result") == "SKIPPED":
                counts["skipped"] += 1
            elif test.get("failures"):
                first = test["failures"][0]["failure"].strip().splitlines()
                counts["failed"].append({"test": f"{suite['name']}.{test['name']}", "says": "\n".join(first[:6])})
            elif test.get("status") == "RUN":
                counts["passed"] += 1
    return counts


def run(s, test_filter, limit, before=()):
    """Counts, and what was said; a crash or a time-out is a failure too. before: a tool that the program runs under."""
    handle, report = tempfile.mkstemp(suffix=".json", dir=s.programs.scratch)
    os.close(handle)
    done = s.run([*before, s.programs.ours, "kernel_tests", f"--gtest_filter={test_filter}", f"--gtest_output=json:{report}"], limit)
    try:
        with open(report) as f:
            counts = summary_of(json.load(f))
    except ValueError:  # it came to no report
        counts = {"passed": 0, "skipped": 0, "failed": []}
    if not done.fine and not counts["failed"]:
        counts["failed"].append({"test": test_filter, "says": done.why()})
    return counts | {"seconds": round(done.seconds, 1)}, done.said


def tests_of(s):
    """[(suite, test)]; RuntimeError where the program cannot say."""
    done = s.ours("kernel_tests", "--gtest_list_tests", f"--gtest_filter={OURS}", limit=30)
    if not done.fine:
        raise RuntimeError(f"kernel_tests cannot list its tests: {done.why()}")
    return listed(done.said)


def at_once():
    """How many processes: each computes a reference on the host's cores."""
    return max(1, min(8, (os.cpu_count() or 1) // 2))


def side_by_side(work, items, count):
    """work(item) of each, `count` at a time, in order of the items."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(work, item) for item in items]:
            done.result()
