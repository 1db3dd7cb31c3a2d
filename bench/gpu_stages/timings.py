# SPDX-License-Identifier: Apache-2.0
"""Every kernel's time on the models' shapes, cuDNN's and cuBLASLt's beside ours.

kernel_timings says what it is about to do with which kernel. One that fails is named; one that says nothing more for WATCH
seconds is ended; either way a new process goes on with the same group, without that kernel.
"""

import json
import queue
import statistics
import subprocess
import threading

from gpu_stages import card, probe, processes

NAME, TITLE, SHARE = "timings", "kernels on the models' shapes", 100
WATCH = 30  # seconds; libraries of half a gigabyte load, and cuDNN compiles some kernels, when first asked
FIRST = ("conv2d", "linear", "attention", "group_norm", "batch_norm")  # the ops that take a step's time


def missing(s):
    return s.need()


def options(s):
    return ["--batch", 128, *(["--few"] if s.quick else [])]


def groups(s):
    done = s.ours("kernel_timings", "--list", *options(s), limit=30)
    if not done.fine:
        raise RuntimeError(f"kernel_timings cannot list its groups: {done.why()}")
    return [json.loads(line) for line in done.said.splitlines()]


def in_order(found):
    """Numbers of groups: those first that matter most; of those, nets with large shapes first."""
    def rank(g):
        op = next((i for i, name in enumerate(FIRST) if g["op"].startswith(name)), len(FIRST))
        return op == len(FIRST), ("unet", "text", "resnet", "mnist").index(g["net"]), op

    return [g["group"] for g in sorted(found, key=rank)]


def rehearse(s):
    found = groups(s)
    return f"{len(found)} groups of {sum(len(g['kernels']) for g in found)} kernels"


def lines_of(process):
    """A queue of its lines as they come, None after the last."""
    lines = queue.Queue()

    def read():
        with process.stdout:
            for line in process.stdout:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def one_process(s, command, say, watch=WATCH):
    """Follows it to its end: (groups done, kernel that it was about when it ended or None, why)."""
    done, doing, why = [], None, ""
    with open(s.programs.scratch / "timings.err", "w+") as err:
        process = processes.start(command, stdout=subprocess.PIPE, stderr=err, text=True, env=s.programs.environment)
        lines = lines_of(process)
        try:
            while True:
                line = lines.get(timeout=max(0.1, min(watch, s.left())))
                if line is None:
                    break
                found = json.loads(line)
                if "doing" in found and "failed" not in found:
                    doing = found
                    continue
                if "done" in found:
                    done.append(found["group"])
                if "broken" in found:
                    why = f"the device is in error after it: {found['broken']}"
                elif "failed" in found or "seconds" in found or found.get("declined"):
                    say(found)
                doing = None if "done" in found else doing
            code = process.wait(timeout=10)
            if code == 0:
                return done, None, ""
            err.seek(0)
            return done, doing, why or f"exit {code}: {err.read().strip()[-1000:]}"
        except queue.Empty:
            return done, doing, "no time left" if s.left() <= 0 else f"nothing came for {watch} s"
        except (ValueError, subprocess.TimeoutExpired) as e:
            return done, doing, f"{type(e).__name__}: {e}"
        finally:
            processes.kill(process)


def follow(s, base, order, say, watch=WATCH):
    """All groups in order, in as many processes as it takes; false where it gave up."""
    without, idle = [], 0
    while order and s.left() > 0:
        command = [*base, "--groups", ",".join(map(str, order))] + (["--without", ",".join(without)] if without else [])
        done, doing, why = one_process(s, command, say, watch)
        order = [g for g in order if g not in done]
        if not why:
            return not order
        if s.left() <= 0:
            break
        idle = 0 if done or doing else idle + 1
        if doing:
            without.append(f"{doing['group']}:{doing['kernel']}")
            say({"group": doing["group"], "kernel": doing["kernel"], "failed": why, "doing": doing["doing"]})
        elif idle == 2:  # it does not come to its work
            say({"problem": why})
            return False
    if order:
        say({"groups_left": len(order)})
    return not order


def add_percent(entry, limits):
    """Of the card's arithmetic and of its memory, each where the work has it."""
    middle = statistics.median(entry["seconds"])
    entry["median_seconds"] = middle
    if limits:
        peak = limits["bf16" if entry["dtype"] == "bf16" else "fp32"]
        entry["percent_of_peak"] = round(100 * entry["flops"] / middle / (peak * 1e12), 1)
        entry["percent_of_bandwidth"] = round(100 * entry["least_bytes"] / middle / (limits["memory"] * 1e12), 1)


def work(s):
    found = groups(s)
    named = {g["group"]: {key: g[key] for key in ("net", "shape", "op", "dtype")} for g in found}
    limits = probe.limits(s.results) or card.data_sheet(s.card["name"])

    def say(line):
        if line.get("seconds"):
            add_percent(line, limits)
        s.say(**(named.get(line.get("group"), {}) | line))

    base = [s.programs.ours, "kernel_timings", *options(s), "--repeats", 3 if s.quick else 5]
    follow(s, base, in_order(found), say)


def ratios(entries):
    """Of each shape with kernels of both: the best library kernel's time over our best one's."""
    shapes = {}
    for e in entries:
        shapes.setdefault((e["net"], e["op"], e["shape"], e["dtype"]), []).append(e)
    found = []
    for key, candidates in shapes.items():
        best = lambda library: min((e for e in candidates if e["library"] == library), key=lambda e: e["median_seconds"], default=None)  # noqa: E731
        ours, theirs = best(False), best(True)
        if ours and theirs:
            found.append({**dict(zip(("net", "op", "shape", "dtype"), key)), "ours": ours["kernel"], "library": theirs["kernel"],
                          "ratio": theirs["median_seconds"] / ours["median_seconds"]})  # fmt: skip
    return found
