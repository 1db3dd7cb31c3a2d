# SPDX-License-Identifier: Apache-2.0
"""Allreduce of ours, of gloo and of Open MPI over sizes, each repeat one after the other."""

import os
import statistics

from harness import ROOT, Failed, run

PROGRAM = ROOT / "build/release/bench/allreduce"
PEER = ROOT / "bench/peers/allreduce.py"
RATIOS_FROM, RATIOS_TO = 100_000, 150_000_000  # bytes: where ratios are of interest


def parse(text):
    """{bytes: microseconds} of a table in nccl-tests' columns; a wrong element is an error."""
    times = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) != 8 or not words[0].isdigit():
            continue
        size, time, wrong = int(words[0]), float(words[4]), int(words[7])
        if wrong:
            raise Failed(f"allreduce of {size} bytes: {wrong} wrong elements\n{text}")
        times[size] = time
    if not times:
        raise Failed(f"no line of an allreduce\n{text}")
    return times


def commands(quick, peers, ranks=2):
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    maximum, iterations = (1 << 20, 5) if quick else (256 << 20, 20)
    sizes = ["--minimum", 1 << 10, "--maximum", maximum, "--iterations", iterations]
    mpirun = ["mpirun", "-n", ranks, *root, "--mca", "pml", "ob1", "--mca", "btl", "self,vader", "--oversubscribe", PROGRAM, *sizes]
    found = {"Lockstep": mpirun, "Open MPI": [*mpirun, "--by", "mpi"]}
    if peers:
        found["gloo"] = [peers, PEER, "--ranks", ranks, *sizes]
    return found


def measure(peers, quick):
    """{library: {bytes: [microseconds of each repeat]}}; peers: the Python that has PyTorch, or None"""
    libraries = commands(quick, peers)
    times = {library: {} for library in libraries}
    for _ in range(1 if quick else 5):
        for library, command in libraries.items():
            for size, time in parse(run(command)).items():
                times[library].setdefault(size, []).append(time)
    return times


def size_text(size):
    for unit, shift in (("MiB", 20), ("KiB", 10)):
        if size >= 1 << shift:
            return f"{size >> shift} {unit}"
    return f"{size} B"


def table(times, ranks=2):
    others = [library for library in times if library != "Lockstep"]
    lines = [f"Allreduce of float32 sums, {ranks} ranks, gradients freshly written before each, all elements right; µs, medians"
             " (busbw as nccl-tests has it):", "",
             "| size | count | Lockstep | algbw, GB/s | busbw, GB/s | " + " | ".join(f"{o} | ratio" for o in others) + " |",
             "| ---: |" + " ---: |" * (4 + 2 * len(others))]  # fmt: skip
    within = {o: [] for o in others}
    for size, mine in times["Lockstep"].items():
        middle = statistics.median(mine)
        algorithm = size / middle * 1e-3
        cells = [size_text(size), f"{size // 4:,}", f"{middle:,.1f}", f"{algorithm:.2f}", f"{algorithm * 2 * (ranks - 1) / ranks:.2f}"]
        for o in others:
            other = statistics.median(times[o][size])
            cells += [f"{other:,.1f}", f"{other / middle:.1f}"]
            if RATIOS_FROM <= size <= RATIOS_TO:
                within[o].append(other / middle)
        lines.append("| " + " | ".join(cells) + " |")
    said = [f"{statistics.median(r):.1f} times as fast as {o} ({min(r):.1f} to {max(r):.1f})" for o, r in within.items() if r]
    if said:
        lines += ["", "From 100 KB to 150 MB, median over the sizes: " + "; ".join(said) + "."]
    return "\n".join(lines)
