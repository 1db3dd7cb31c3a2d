# SPDX-License-Identifier: Apache-2.0
"""Every candidate of the ops that cost most in a step, from what build/release/bench/kernel_bench says."""

import json

from harness import ROOT, run

PROGRAM = ROOT / "build/release/bench/kernel_bench"
MICROSECONDS = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}


def candidates(report, repeated):
    """Google Benchmark's JSON as {op/layer: [{kernel, layout, us, gflops, gb_s, calls, chosen, threads, shape}]}; of
    repetitions the medians."""
    found = {}
    for e in report["benchmarks"]:
        if repeated and e.get("aggregate_name") != "median":
            continue
        words = e["run_name"].removesuffix("/real_time").split("/")
        found.setdefault("/".join(words[:-2]), []).append(
            {"kernel": words[-2], "layout": words[-1], "us": e["real_time"] * MICROSECONDS[e["time_unit"]], "gflops": e["GFLOP/s"],
             "gb_s": e["GB/s"], "calls": round(e["calls"]), "chosen": bool(e["chosen"]), "threads": round(e["threads"]), "shape": e.get("label", "")}
        )  # fmt: skip
    return found


def measure(job, settings, quick):
    overrides = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    often = ["--benchmark_min_time=0.001"] if quick else ["--benchmark_min_time=0.02", "--benchmark_repetitions=5"]
    text = run([PROGRAM, job, *overrides, "--benchmark_format=json", *often])
    return candidates(json.loads(text), repeated=not quick)


def cost(kernels):
    """Microseconds that the plan's kernel takes of a step."""
    return sum(k["us"] * k["calls"] for k in kernels if k["chosen"])


def table(net, ops, peak, most=12):
    """peak: GFLOP/s of so many threads"""
    by_cost = sorted(ops.items(), key=lambda item: -cost(item[1]))
    whole = sum(cost(kernels) for kernels in ops.values())
    threads = next(iter(ops.values()))[0]["threads"]
    lines = [f"Kernels of {net}, {threads} thread{'s' if threads > 1 else ''}; the plan's in bold:", "",
             "| op/layer | shape | calls a step | kernel, layout | µs | GFLOP/s | of peak | GB/s |",
             "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for name, kernels in by_cost[:most]:
        for i, k in enumerate(sorted(kernels, key=lambda k: k["us"])):
            head = [name, k["shape"], str(k["calls"])] if i == 0 else ["", "", ""]
            label = f"**{k['kernel']}**" if k["chosen"] else k["kernel"]
            works = k["gflops"] > 0
            lines.append("| " + " | ".join([*head, f"{label}, {k['layout']}", f"{k['us']:,.1f}", f"{k['gflops']:,.1f}" if works else "–",
                                            f"{100 * k['gflops'] / peak:.0f} %" if works else "–", f"{k['gb_s']:,.1f}"]) + " |")  # fmt: skip
    shown = sum(cost(kernels) for _, kernels in by_cost[:most])
    lines += ["", f"These are {100 * shown / whole:.0f} % of the {whole / 1000:,.2f} ms that all {len(ops)} ops of the step take so;"
              " --json has the others."]  # fmt: skip
    return "\n".join(lines)
