# SPDX-License-Identifier: Apache-2.0
"""PyTorch on the same nets, data and weights: eager once each, then compiled, the UNet last, which takes longest to compile."""

import json

from gpu_stages.training import PEERS, ROWS, WARMUP, WINDOW, jobs_of, tried
from harness import Failed

NAME, TITLE, SHARE = "pytorch", "PyTorch", 120
COMPILED = [("mnist", "fp32"), ("resnet18", "bf16"), ("ddpm_cifar10", "bf16")]
LIMIT = {"pytorch": 45, "pytorch compiled": 90}  # seconds of one run; the UNet's compiling has what is left


def missing(s):
    return s.need(program=False, pytorch=True)


def plan():
    """[(side, net, precision)], in order; bf16 first, which GPUs are trained in."""
    eager = sorted((row for row in ROWS if row[0] in PEERS), key=lambda row: row[1])
    return [("pytorch", *row) for row in eager] + [("pytorch compiled", *row) for row in COMPILED]


# What the peers' scripts import; diffusers looks for its parts when they are asked for.
IMPORTS = ("numpy", "PIL", "safetensors.torch", "torchvision", "diffusers:UNet2DModel", "diffusers:DDIMScheduler")
TRY_IMPORTS = """import importlib, sys
sys.path += sys.argv[2:]
for name in sys.argv[1].split(","):
  module, _, part = name.partition(":")
  try:
    found = importlib.import_module(module)
    part and getattr(found, part)
  except Exception as e:
    print(name, type(e).__name__, str(e)[-300:])
"""


def modules(s):
    """What of them is not to be had, and why."""
    done = s.run_peer([s.programs.python, "-c", TRY_IMPORTS, ",".join(IMPORTS), *filter(None, [s.programs.wheels])], 60)
    return done.said.strip() if done.fine else done.why()


def rehearse(s):
    absent = modules(s).replace("\n", "; ") if s.programs.python else ""
    return f"{len(plan())} runs of {len(PEERS)} nets" + (f"; cannot be imported: {absent}" if absent else "")


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
