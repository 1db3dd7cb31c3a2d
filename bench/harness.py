# SPDX-License-Identifier: Apache-2.0
"""What the bench scripts share."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Failed(Exception):
    pass


def run(command, **options):
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, text=True, capture_output=True, **options)
    if done.returncode != 0:
        raise Failed(f"exit {done.returncode}: {' '.join(str(c) for c in command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


@contextlib.contextmanager
def other_work(count=2):
    """As many processes that do nothing but compute."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def metrics(folder, split):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


def throughput(folder, batch, warmup):
    """Samples a second of a run folder's training lines from step `warmup` on."""
    lines = [line for line in metrics(folder, "training") if line["step"] >= warmup]
    first, last = lines[0], lines[-1]
    return (last["step"] - first["step"]) * batch / (last["seconds"] - first["seconds"])


def machine():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = "unknown processor"
    return f"{model}, {len(os.sched_getaffinity(0))} cores"


def commit():
    done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], text=True, capture_output=True)
    return done.stdout.strip()


def peers_folder():
    return pathlib.Path(os.environ.get("LOCKSTEP_PEERS", pathlib.Path.home() / ".cache/lockstep/peers"))


def peers_python():
    python = peers_folder() / "bin/python"
    if not python.exists():
        return None, f"PyTorch: not measured, no environment in {peers_folder()} (bench/peers/install makes it)"
    return python, "PyTorch " + run([python, "-c", "import torch; print(torch.__version__)"]).strip()
