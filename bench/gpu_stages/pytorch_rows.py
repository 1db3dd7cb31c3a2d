# SPDX-License-Identifier: Apache-2.0
"""PyTorch on the same nets, data and weights: eager once each, then compiled, the UNet last, which takes longest to compile."""

import json

from gpu_stages.training import NETS, ROWS, WARMUP, WINDOW, jobs_of, tried
from harness import Failed

NAME, TITLE, SHARE = "pytorch", "PyTorch", 120
COMPILED = [("mnist", "fp32"), ("resnet18", "bf16"), ("ddpm_cifar10", "bf16")]
LIMIT = {"pytorch": 45, "pytorch compiled": 90}  # seconds of one run; the UNet's compiling has what is left


def missing(s):
    return s.need(program=False, pytorch=True)


def plan():
    """[(side, net, precision)], in order; bf16 first, which GPUs are trained in."""
    eager = sorted(ROWS, key=lambda row: row[1])
    return [("pytorch", *row) for row in eager] + [("pytorch compiled", *row) for row in COMPILED]


def modules(s):
    """What the scripts import, that is not to be had."""
    code = "import importlib, sys\nsys.path += sys.argv[1:]\nfor n in 'numpy PIL safetensors torchvision diffusers'.split():\n" \
           "  try: importlib.import_module(n)\n  except Exception as e: print(n, type(e).__name__, e)"  # fmt: skip
    done = s.run_peer([s.programs.python, "-c", code, *filter(None, [s.programs.wheels])], 60)
    return done.said.strip() if done.fine else done.why()


def rehearse(s):
    absent = modules(s).replace("\n", "; ") if s.programs.python else ""
    return f"{len(plan())} runs of {len(NETS)} nets" + (f"; cannot be imported: {absent}" if absent else "")


def one(s, jobs, side, net, precision):
    # The first step's time is its compiling: WARMUP steps take it in.
    words = ["--steps", WARMUP[net] + 5, "--warmup", WARMUP[net], "--seconds", WINDOW]
    last = side != "pytorch" and net == "ddpm_cifar10"
    if side != "pytorch":
        words += ["--compile", "reduce-overhead" if last else "max-autotune"]
    done = s.run_peer(jobs.peer(net, precision, *words), s.left() if last else LIMIT[side])
    if not done.fine:
        raise Failed(done.why())
    result = json.loads(done.said.splitlines()[-1])
    s.say(net=net, precision=precision, side=side, samples_per_second=result["samples_per_second"], torch=result["torch"])


def work(s):
    if absent := modules(s):
        s.say(problem=f"cannot be imported: {absent}")
    jobs = jobs_of(s)
    for side, net, precision in plan():
        tried(s, {"net": net, "precision": precision, "side": side}, lambda a=(side, net, precision): one(s, jobs, *a))
