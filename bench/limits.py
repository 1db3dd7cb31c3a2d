# SPDX-License-Identifier: Apache-2.0
"""What the machine can do, measured by build/release/bench/limits, and what a net's FLOPs are of that."""

import json

from harness import ROOT, run


def measure():
    return json.loads(run([ROOT / "build/release/bench/limits"]))


def peak(limits, threads, precision):
    """GFLOP/s, and of which dtype: a processor without bf16 instructions computes bf16 as fp32."""
    at = limits["peak"].get(str(threads)) or limits["peak"][str(limits["threads"])]
    if precision == "bf16" and at["bf16_gflops"]:
        return at["bf16_gflops"], "bf16"
    return at["fp32_gflops"], "fp32"


def table(limits):
    counts = list(limits["peak"])
    lines = [f"The machine's limits ({limits['instruction_set']}), measured now:", "",
             "| limit | " + " | ".join(f"{n} thread{'s' if n != '1' else ''}" for n in counts) + " |", "| --- |" + " ---: |" * len(counts)]  # fmt: skip
    for dtype in ("fp32", "bf16"):
        rates = [limits["peak"][n][dtype + "_gflops"] for n in counts]
        cells = [f"{r:,.0f} GFLOP/s" if r else "no such instructions" for r in rates]
        lines.append(f"| {dtype} multiply-adds from registers | " + " | ".join(cells) + " |")
    for b in limits["bandwidth"]:
        size = f"{b['bytes'] / 2**20:.1f} MiB" if b["bytes"] >= 2**20 else f"{b['bytes'] / 2**10:.0f} KiB"
        cells = [f"{b['threads'][n]['read_gb_s']:,.0f}, {b['threads'][n]['copy_gb_s']:,.0f} GB/s" for n in counts]
        lines.append(f"| {b['level']} ({size}): read, copy | " + " | ".join(cells) + " |")
    return "\n".join(lines)
