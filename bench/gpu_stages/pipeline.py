# SPDX-License-Identifier: Apache-2.0
"""Calls of a pipeline of Stable Diffusion 1.5's size: the text encoder, the UNet with guidance, the decoder of a picture of
512×512, in fp32 and bf16, beside diffusers."""

import json
import statistics

from harness import Failed

from gpu_stages.training import tried

NAME, TITLE, SHARE = "pipeline", "a pipeline of Stable Diffusion 1.5's size", 60
PRECISIONS = ("bf16", "fp32")  # bf16 first, which pictures are drawn in
CALLED = ("denoise", "decode")  # of diffusers too: its text encoder is transformers', which a bundle has not
LIMIT = 60  # seconds of one run: weights are drawn and kernels chosen first


def missing(s):
    return s.need()


def options(s):
    return ["--calls", 10, *(["--few"] if s.quick else [])]


def programs(s):
    done = s.ours("program_timings", "--list", *options(s), limit=30)
    if not done.fine:
        raise Failed(f"program_timings cannot list its programs: {done.why()}")
    return [json.loads(line)["program"] for line in done.said.splitlines()]


def rehearse(s):
    found = programs(s)
    return f"{len(found)} programs in {len(PRECISIONS)} precisions: {', '.join(found)}"


def ours(s, program, precision):
    done = s.ours("program_timings", "--precision", precision, *options(s), program, limit=LIMIT)
    if not done.fine:
        raise Failed(done.why())
    found = json.loads(done.said.splitlines()[-1])
    s.say(side="lockstep", call_seconds=statistics.median(found["seconds"]), **found)


def theirs(s, side, program, precision):
    words = ["--compile"] if side != "pytorch" else []
    done = s.run_peer(s.programs.peer("program_calls.py", program, "--precision", precision, *words), s.left() if words else LIMIT)
    if not done.fine:
        raise Failed(done.why())
    found = json.loads(done.said.splitlines()[-1])
    s.say(side=side, program=program, precision=precision, call_seconds=statistics.median(found["seconds"]), **found)


def work(s):
    for precision in PRECISIONS:
        for program in programs(s):
            tried(s, {"program": program, "precision": precision}, lambda a=(program, precision): ours(s, *a))
    if s.quick or not s.programs.python:  # the peer knows the whole size alone
        return
    runs = [("pytorch", program, precision) for precision in PRECISIONS for program in CALLED]
    for side, program, precision in [*runs, ("pytorch compiled", "denoise", "bf16")]:
        what = {"program": program, "precision": precision, "side": side}
        tried(s, what, lambda a=(side, program, precision): theirs(s, *a))
