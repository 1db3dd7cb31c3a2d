# SPDX-License-Identifier: Apache-2.0
"""The table that ends a run: what each stage did, and what it found, of the lines that there are."""

import statistics

from gpu_stages import timings


def tests_row(lines):
    """Of a stage of tests: passed, failed, and which."""
    ran = [line for line in lines if "passed" in line]
    failed = [f["test"] for line in ran for f in line["failed"]]
    text = f"{sum(line['passed'] for line in ran)} passed, {len(failed)} failed, {sum(line['skipped'] for line in ran)} skipped"
    left = sum("not_run" in line for line in lines)
    return text + (f", {left} not run" if left else "") + (": " + ", ".join(failed[:12]) + ("…" if len(failed) > 12 else "") if failed else "")


def timing_rows(lines):
    timed = [line for line in lines if line.get("seconds") and "kernel" in line]
    rows = []
    by_op = {}
    for r in timings.ratios(timed):
        by_op.setdefault((r["op"], r["dtype"]), []).append(r)
    best = {}
    for e in timed:
        if not e["library"]:
            best.setdefault((e["op"], e["dtype"]), {}).setdefault((e["net"], e["shape"]), []).append(e)
    for (op, dtype), shapes in sorted(best.items()):
        fastest = [min(candidates, key=lambda e: e["median_seconds"]) for candidates in shapes.values()]
        text = f"{len(fastest)} shapes"
        for key, what in (("percent_of_peak", "of the peak"), ("percent_of_bandwidth", "of the bandwidth")):
            values = [e[key] for e in fastest if e.get(key)]
            if values:
                text += f"; {statistics.median(values):.0f} % {what} ({min(values):.0f} to {max(values):.0f})"
        ratios = by_op.get((op, dtype))
        if ratios:
            values = [r["ratio"] for r in ratios]
            text += (f"; {statistics.median(values):.2f}x {'/'.join(sorted({r['library'] for r in ratios}))} "
                     f"({min(values):.2f} to {max(values):.2f})")  # fmt: skip
        rows.append((f"{op} {dtype}, our best", text))
    failed = {}
    for line in lines:
        if "failed" in line and "kernel" in line:
            failed.setdefault(f"{line.get('op', '?')} {line['kernel']} {line.get('dtype', '')}", []).append(line)
    for kernel, all_of_it in sorted(failed.items()):
        first = all_of_it[0]
        rows.append((f"FAILED: {kernel}", f"{len(all_of_it)} shapes; {first.get('shape')}, {first['doing']}: {first['failed'][-200:]}"))
    apart = [e for e in timed if e["difference"] > (0.05 if e["dtype"] == "bf16" else 1e-3)]
    for e in apart[:8]:
        rows.append((f"DIFFERS: {e['op']} {e['kernel']} {e['dtype']}, {e['shape']}", f"by {e['difference']:.2g} of the first kernel's"))
    return rows


def training_rows(results):
    lines = [*results.of("training"), *results.of("pytorch")]
    rows, seen = [], {}
    for line in lines:
        if "samples_per_second" in line:
            seen.setdefault((line["net"], line["precision"]), {})[line["side"]] = line["samples_per_second"]
    for (net, precision), sides in seen.items():
        text = ", ".join(f"{side} {value:,.0f}" for side, value in sides.items())
        mine = sides.get("lockstep")
        if mine:
            text += "".join(f"; {mine / value:.2f}x {side}" for side, value in sides.items() if side.startswith("pytorch"))
        losses = [line["same_losses"] for line in lines if line.get("net") == net and line.get("precision") == precision and "same_losses" in line]
        text += "; losses " + ({True: "as PyTorch's", False: "NOT as PyTorch's"}[losses[0]] if losses else "not compared")
        rows.append((f"{net} {precision}, samples/s", text))
    for line in lines:
        if "problem" in line or "not_run" in line:
            what = " ".join(str(line[key]) for key in ("net", "precision", "side") if key in line)
            rows.append((f"{line['stage']} {what}", line.get("not_run") or line["problem"]))
    return rows


def pipeline_rows(lines):
    rows, seen = [], {}
    for line in lines:
        if "call_seconds" in line:
            seen.setdefault((line["program"], line["precision"]), {})[line["side"]] = line["call_seconds"]
        elif "problem" in line or "not_run" in line:
            what = " ".join(str(line[key]) for key in ("program", "precision", "side") if key in line)
            rows.append((f"pipeline {what}", line.get("not_run") or line["problem"]))
    for (program, precision), sides in seen.items():
        text = ", ".join(f"{side} {1000 * value:.1f}" for side, value in sides.items())
        if mine := sides.get("lockstep"):
            text += "".join(f"; {value / mine:.2f}x {side}" for side, value in sides.items() if side.startswith("pytorch"))
        rows.append((f"{program} {precision}, ms a call", text))
    return rows


def sanitizer_rows(lines):
    rows = []
    for check in ("memcheck", "racecheck"):
        ran = [line for line in lines if line.get("check") == check and "errors" in line]
        if ran:
            red = [line["test"] for line in ran if line["errors"] != 0 or line["failed"]]
            rows.append((check, f"{len(ran) - len(red)} of {len(ran)} ops clean" + (": not " + ", ".join(red) if red else "")))
    return rows


def probe_rows(lines):
    rows = []
    for line in lines:
        if line.get("card"):
            rows.append(("card", ", ".join(line["card"].values())))
        if "peer" in line:
            rows.append(("peer", line["peer"]))
        if line.get("limits"):
            rows.append((f"limits, {line['source']}", ", ".join(f"{key} {value:.3g}" for key, value in line["limits"].items())))
        if line.get("gpu_libraries"):
            rows.append(("libraries", str(line["gpu_libraries"])[:300]))
    return rows


def state_rows(s, stages):
    rows = []
    for stage in stages:
        ended = s.results.of(stage.NAME, "state")
        if ended:
            rows.append((stage.TITLE, f"{ended[-1]['state']}, {ended[-1]['seconds']} s" + (f": {ended[-1]['why']}" if ended[-1]["why"] else "")))
        else:
            rows.append((stage.TITLE, "not begun"))
    return rows


def red(results):
    """Whether a test failed, a kernel failed or differs, losses are not PyTorch's, or a check found something."""
    return any(line.get("failed") or line.get("same_losses") is False or (line.get("errors") or 0) > 0 for line in results.lines)


def cell(text):
    return " ".join(str(text).split())[-300:].replace("|", "\\|")


def table(s, stages):
    results = s.results
    rows = state_rows(s, stages) + probe_rows(results.of("probe"))
    rows += [(stage, tests_row(results.of(stage))) for stage in ("cases", "words") if results.of(stage, "passed")]
    rows += timing_rows(results.of("timings")) + training_rows(results) + pipeline_rows(results.of("pipeline"))
    rows += sanitizer_rows(results.of("sanitizer"))
    return "| what | result |\n| --- | --- |\n" + "\n".join(f"| {cell(what)} | {cell(result)} |" for what, result in rows) + "\n"
