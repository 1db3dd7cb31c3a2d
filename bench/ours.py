# SPDX-License-Identifier: Apache-2.0
"""Lockstep's side of the rows of bench/run: each method runs the program and returns a figure."""

import dataclasses
import json
import os
import pathlib
import random
import re
import signal
import statistics
import struct
import subprocess
import tempfile
import time
import zlib

from harness import ROOT, Failed, metrics, run, throughput
from process_memory import peak_pss

LOCKSTEP = ROOT / "build/release/lockstep"
CONFIGS = ROOT / "configs"
WARMUP = 50  # MNIST's steps before the clock starts, on both sides
IMAGE_JOBS = {"resnet18": CONFIGS / "resnet18_cifar10.yaml", "ddpm_cifar10": CONFIGS / "ddpm_cifar10.yaml"}
NARROW = "[32, 64, 64, 64]"  # a quarter of the UNet's channels (train_images.py --narrow)


def overrides(settings):
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def write_png(path, height, width, pixels):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + pixels[y * width * 3 : (y + 1) * width * 3] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def write_pictures(folder):
    """32×32 pictures of noise, 64 for each of ten classes."""
    draw = random.Random(1)
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for i in range(64):
            write_png(folder / str(label) / f"{i:02}.png", 32, 32, draw.randbytes(32 * 32 * 3))


def seconds_until(command, seen, stop=False, **options):
    """From starting a process until seen(process) returns true; it then ends, or is asked to (stop)."""
    started = time.perf_counter()
    process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT,
                               stdout=subprocess.PIPE, text=True, **options)  # fmt: skip
    try:
        was_seen = seen(process)
        seconds = time.perf_counter() - started
        if was_seen and stop:
            process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=600)[0]
    finally:
        process.kill()
        process.wait()
    if not was_seen or (process.returncode != 0 and not stop):
        raise Failed(f"exit {process.returncode}: {' '.join(str(c) for c in command)}\n{said[-2000:]}")
    return seconds


def images_per_second(batch, seconds):
    """seconds: of each step, the first of which also warms up"""
    return batch / statistics.median(seconds[1:])


@dataclasses.dataclass
class Training:
    """A job, and the settings that a row trains it with."""

    job: pathlib.Path
    batch: int
    settings: dict
    warmup: int = 0  # steps before the clock starts; 0: log_every is 1, and the median step counts
    program: pathlib.Path = LOCKSTEP
    losses: list = dataclasses.field(default_factory=list)  # of the last fit's training lines

    @property
    def threads(self):  # of all ranks
        return self.settings["instance_count"] * self.settings["threads_per_rank"]

    @property
    def precision(self):
        return self.settings.get("hyperparameters.precision", "fp32")

    def command(self, word, *rest):
        return [self.program, word, self.job, *rest, *overrides(self.settings)]

    def rate(self, folder, trace=None):
        """Samples a second."""
        run(self.command("fit", "--output", folder, *(["--trace", trace] if trace else [])))
        lines = metrics(folder, "training")
        self.losses = [line["loss"] for line in lines]
        if self.warmup:
            return throughput(folder, self.batch, self.warmup)
        ends = [0] + [line["seconds"] for line in lines]
        return images_per_second(self.batch, [b - a for a, b in zip(ends, ends[1:])])

    def flops_of_a_sample(self):
        """By the definition of each op: convolutions direct."""
        plan = json.loads(run(self.command("plan", "--json")))
        return plan["flops"] / plan["batch_per_rank"]


class Ours:
    def __init__(self, scratch, quick, program=LOCKSTEP):
        self.scratch = scratch
        self.quick = quick
        self.program = program
        self.image_steps = 2 if quick else 6
        self.pictures = scratch / "pictures"
        write_pictures(self.pictures)

    def folder(self):
        return pathlib.Path(tempfile.mkdtemp(dir=self.scratch)) / "run"

    def mnist(self, ranks, threads, batch, steps):
        steps = WARMUP + 20 if self.quick else steps
        settings = {"instance_count": ranks, "threads_per_rank": threads, "hyperparameters.global_batch_size": batch,
                    "hyperparameters.steps": steps, "log_every": 10}  # fmt: skip
        return Training(CONFIGS / "mnist_article.yaml", batch, settings, WARMUP, self.program)

    def images(self, model, batch, precision, weights=None, ranks=1, threads=2):
        """weights: what both sides start from; of the UNet the folder of its model"""
        normalize = "" if model == "ddpm_cifar10" else ", normalize: {mean: [0.4914, 0.4822, 0.4465], std: [0.2470, 0.2435, 0.2616]}"
        settings = {"inputs": f"{{training: {{dataset: image_folder, path: {self.pictures}{normalize}}}}}", "instance_count": ranks,
                    "threads_per_rank": threads, "log_every": 1, "checkpoint": "{keep: 1}", "hyperparameters.shuffle": "false",
                    "hyperparameters.global_batch_size": batch, "hyperparameters.steps": self.image_steps,
                    "hyperparameters.precision": precision, "hyperparameters.lr_schedule": "constant"}  # fmt: skip
        if model == "ddpm_cifar10":
            # Dropout off: draws of theirs and ours differ.
            settings |= {"model.config.dropout": 0, "sampling": "{count: 1, steps: 1}"}
            settings |= {"model.config.block_out_channels": NARROW} if self.quick else {}
            settings |= {"model.init_from": weights} if weights else {}
        elif weights:
            settings["model.init_from"] = weights
        return Training(IMAGE_JOBS[model], batch, settings, program=self.program)

    def painter(self, batch, precision, threads):
        settings = {"instance_count": 1, "threads_per_rank": threads, "log_every": 1, "checkpoint": "{keep: 1}",
                    "sampling": "{count: 1, steps: 1}", "hyperparameters.global_batch_size": batch,
                    "hyperparameters.steps": self.image_steps, "hyperparameters.precision": precision,
                    "hyperparameters.lr_schedule": "constant"}  # fmt: skip
        return Training(CONFIGS / "painter_digits.yaml", batch, settings, program=self.program)

    def rate(self, training, trace=None):
        return training.rate(self.folder(), trace)

    def peak_memory(self, training):
        """MB of the largest rank."""
        return peak_pss(training.command("fit", "--output", self.folder())) / 1e6

    def start(self, cold):
        """Seconds to the end of the first step, as seen from outside."""
        folder = self.folder()
        environment = dict(os.environ)
        if cold:
            environment["XDG_CACHE_HOME"] = str(folder.parent / "cache")
        settings = {"hyperparameters.steps": 1, "log_every": 1}
        command = [LOCKSTEP, "fit", CONFIGS / "mnist_article.yaml", "--output", folder, *overrides(settings)]
        return seconds_until(command, lambda process: self.line_appears(process, folder, lambda line: True), env=environment)

    def until_accuracy(self, accuracy, seed, limit):
        """Seconds to the end of the epoch after which that share of the test images is read right."""
        folder = self.folder()
        settings = {"inputs.validation": f"{{dataset: mnist, path: {CONFIGS / 'data/mnist'}}}", "hyperparameters.seed": seed,
                    "inputs.training.limit": limit}  # fmt: skip
        command = [LOCKSTEP, "fit", CONFIGS / "mnist_cnn.yaml", "--output", folder, *overrides(settings)]
        reached = lambda line: line["split"] == "validation" and line["accuracy"] >= accuracy  # noqa: E731
        return seconds_until(command, lambda process: self.line_appears(process, folder, reached), stop=True)

    def line_appears(self, process, folder, wanted):
        file = folder / "metrics.jsonl"
        while process.poll() is None:
            if file.exists() and any(wanted(json.loads(line)) for line in file.read_text().split("\n")[:-1]):
                return True
            time.sleep(0.001)
        return False

    def accuracy(self, seed):
        folder = self.folder()
        run([LOCKSTEP, "fit", CONFIGS / "mnist_article.yaml", "--output", folder, *overrides({"hyperparameters.seed": seed})])
        return 100 * metrics(folder, "test")[-1]["accuracy"]

    def trained_unet(self):
        """A run's folder, to sample from where nobody else has made weights."""
        folder = self.scratch / "unet-run"
        if not folder.exists():
            self.images("ddpm_cifar10", 2, "fp32").rate(folder)
        return folder

    def sample(self, folder, count, steps, precision, raw, noise):
        """Images a second of DDIM's steps; writes the images and what they began with."""
        out = run([LOCKSTEP, "sample", folder, "--count", count, "--steps", steps, "--sampler", "ddim", "--precision", precision,
                   "--out", self.scratch / "samples.png", "--raw", raw, "--save-noise", noise])  # fmt: skip
        return count / float(re.search(r": ([\d.]+) s$", out, re.MULTILINE)[1])
