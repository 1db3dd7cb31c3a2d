# SPDX-License-Identifier: Apache-2.0
"""Where a training step's time goes, from the trace that `lockstep fit --trace` writes."""

PARTS = ("data", "forward", "backward", "allreduce, exposed", "optimizer", "between them")


def part_of(event):
    if event["name"] == "wait for data":
        return "data"
    if event["name"] == "wait for allreduce" or event["cat"] == "communication":
        return "allreduce, exposed"
    return {"update": "optimizer"}.get(event["cat"], event["cat"])


def split(trace, rank=0):
    """{part: milliseconds a step} of what a rank's computing thread did."""
    spans = [e for e in trace["traceEvents"] if e["ph"] == "X" and e["pid"] == rank and e["tid"] == 0]
    steps = sum(e["cat"] == "update" for e in spans)
    if steps == 0:
        raise ValueError("the trace holds no step")
    parts = dict.fromkeys(PARTS, 0.0)
    for e in spans:
        parts[part_of(e)] += e["dur"] / 1000 / steps
    # The recording begins at 0 and ends with a step.
    parts["between them"] = max(e["ts"] + e["dur"] for e in spans) / 1000 / steps - sum(parts.values())
    return parts


def table(splits):
    """splits: {row: {part: ms}}"""
    lines = ["Where the time of a step goes, ms, rank 0 of Lockstep:", "",
             "| what | step | " + " | ".join(PARTS) + " |", "| --- |" + " ---: |" * (1 + len(PARTS))]  # fmt: skip
    for row, parts in splits.items():
        cells = [sum(parts.values()), *parts.values()]
        lines.append(f"| {row} | " + " | ".join(f"{v:.2f}" for v in cells) + " |")
    return "\n".join(lines)
