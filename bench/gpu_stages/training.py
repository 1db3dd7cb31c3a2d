# SPDX-License-Identifier: Apache-2.0
"""`lockstep fit` of four nets in fp32 and bf16: samples a second over a window of some seconds, and, of those that the peers
train too, whether the first losses are PyTorch's on the same weights."""

import concurrent.futures
import functools
import json
import math
import pathlib
import statistics
import tempfile

from harness import Failed, metrics, throughput
from ours import Ours
from pytorch import NET_WITHOUT_DROPOUT, same_losses

NAME, TITLE, SHARE = "training", "lockstep fit", 120
BATCH = 128
NETS = {"mnist": "mnist_convnet_dropout", "resnet18": "ResNet-18", "ddpm_cifar10": "the DDPM UNet", "painter": "the painter of digits"}
PEERS = ("mnist", "resnet18", "ddpm_cifar10")  # which have scripts of the peers
ROWS = [(net, precision) for net in NETS for precision in ("fp32", "bf16")]
WINDOW = 3.0  # seconds at least
WARMUP = {"mnist": 200, "resnet18": 30, "ddpm_cifar10": 20, "painter": 20}  # steps before the clock starts, on both sides
CHECKED = {"mnist": 20, "resnet18": 12, "ddpm_cifar10": 12, "painter": 12}  # steps of the first run: for losses, kernel choices and its speed
COMPARED = {"mnist": 20, "resnet18": 1, "ddpm_cifar10": 1}  # losses of it
MOST_STEPS = 1_000_000
FOR_LOSSES = 25  # seconds of the stage that are kept for PyTorch's losses


def missing(s):
    return s.need()


class Jobs:
    """The jobs of the rows, and what both sides start from."""

    def __init__(self, s):
        self.s = s
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=s.programs.scratch))
        self.ours = Ours(self.folder, False, s.programs.ours)
        self.weights = {}

    def weights_file(self, net):
        """As the peers' scripts name it; of the UNet the folder of its model."""
        return self.folder / "unet-model/unet" if net == "ddpm_cifar10" else self.folder / f"{net}.safetensors"

    def make_weights(self, limit):
        """With the peers', where they are; what fails is said."""
        def make(net):
            script, words = self.peer_words(net)
            done = self.s.run_peer(self.s.programs.peer(script, *words, "--make", self.weights_file(net)), limit)
            if done.fine:
                self.weights[net] = self.weights_file(net)
            else:
                self.s.say(net=net, problem=f"no weights from PyTorch: {done.why()}")

        with concurrent.futures.ThreadPoolExecutor(len(PEERS)) as pool:
            list(pool.map(make, PEERS))

    @staticmethod
    def peer_words(net):
        if net == "mnist":
            return "train_mnist.py", ["--model", "mnist_convnet_dropout", "--ranks", 1]
        return "train_images.py", ["--model", net]

    def peer(self, net, precision, *rest):
        script, words = self.peer_words(net)
        words += ["--device", "cuda", "--precision", precision, "--batch", BATCH]
        if net in self.weights:
            words += ["--from", self.weights[net]]
        words += ["--no-test"] if net == "mnist" else ["--channels-last", "--pictures", self.ours.pictures]
        return self.s.programs.peer(script, *words, *rest)

    def ours_of(self, net, precision, checked=False):
        """checked: the run whose losses are compared, with no draws that differ on the two sides."""
        weights = self.weights.get(net)
        if net == "mnist":
            job = self.ours.mnist(1, 4, BATCH, 0)
            job.settings["hyperparameters.precision"] = precision
            if checked:
                init = f"init_from: {weights}, " if weights else ""
                job.settings |= {"model": f"{{{init}layers: {' '.join(NET_WITHOUT_DROPOUT.split())}}}", "hyperparameters.shuffle": "false"}
        elif net == "painter":
            job = self.ours.painter(BATCH, precision, 4)
        else:
            start = weights.parent if weights and net == "ddpm_cifar10" else weights
            job = self.ours.images(net, BATCH, precision, start, threads=4)
        job.settings |= {"device": "cuda"}
        job.warmup = 0 if checked else WARMUP[net]
        return job

    def fit(self, job, steps, log_every, limit):
        """The folder of the run."""
        job.settings |= {"hyperparameters.steps": steps, "log_every": log_every}
        folder = self.ours.folder()
        done = self.s.run(job.command("fit", "--output", folder), limit)
        if not done.fine:
            raise Failed(done.why())
        return folder


def step_seconds(folder):
    """Of the later half of a run's steps, each of which has a line."""
    ends = [line["seconds"] for line in metrics(folder, "training")]
    later = [b - a for a, b in zip(ends, ends[1:])][len(ends) // 2 :]
    return max(statistics.median(later), 1e-6)


def window(folder, warmup):
    """Seconds from the first line at `warmup` steps or later to the last."""
    lines = [line["seconds"] for line in metrics(folder, "training") if line["step"] >= warmup]
    return lines[-1] - lines[0] if lines else 0.0


def steps_for(seconds_a_step, warmup):
    """Enough for the window, and a sixth more; how often to log."""
    timed = min(MOST_STEPS, max(20, math.ceil(WINDOW * 7 / 6 / seconds_a_step)))
    log_every = max(1, timed // 24)
    return math.ceil(warmup / log_every) * log_every + timed + log_every, log_every


def timed(jobs, net, precision, seconds_a_step):
    """(samples a second, window); again with more steps where the window was too short."""
    job = jobs.ours_of(net, precision)
    for _ in range(3):
        steps, log_every = steps_for(seconds_a_step, job.warmup)
        folder = jobs.fit(job, steps, log_every, 60)
        seconds = window(folder, job.warmup)
        rate = throughput(folder, BATCH, job.warmup)
        if seconds >= WINDOW or steps >= MOST_STEPS:
            break
        seconds_a_step = BATCH / rate
    return rate, seconds


def row(s, jobs, net, precision):
    """What our side does; losses of the first run, for the comparison."""
    job = jobs.ours_of(net, precision, checked=True)
    folder = jobs.fit(job, CHECKED[net], 1, 60)
    losses = [line["loss"] for line in metrics(folder, "training")]
    s.say(net=net, precision=precision, first_losses=losses)
    rate, seconds = timed(jobs, net, precision, step_seconds(folder))
    s.say(net=net, precision=precision, side="lockstep", samples_per_second=rate, window=seconds)
    return losses


def compare(s, jobs, net, precision, losses):
    count = COMPARED[net]
    rest = ["--dropout", 0, "--in-order"] if net == "mnist" else []
    done = s.run_peer(jobs.peer(net, precision, "--steps", count, "--warmup", count, *rest), 90)
    if not done.fine:
        s.say(net=net, precision=precision, problem=f"no losses from PyTorch: {done.why()}")
        return
    theirs = json.loads(done.said.splitlines()[-1])["losses"]
    try:
        same_losses(f"{net} {precision}", losses[:count], theirs, precision)
        s.say(net=net, precision=precision, same_losses=True, lockstep=losses[:count], pytorch=theirs)
    except Failed as e:
        s.say(net=net, precision=precision, same_losses=False, lockstep=losses[:count], pytorch=theirs, says=str(e))


def two_ranks(s, jobs):
    """On one card, over MPI: NCCL refuses that."""
    job = jobs.ours_of("mnist", "fp32")
    job.settings |= {"instance_count": 2, "hyperparameters.backend": "mpi"}
    folder = jobs.fit(job, WARMUP["mnist"] + 400, 20, 60)
    s.say(net="mnist", precision="fp32", side="lockstep, 2 ranks on the card", samples_per_second=throughput(folder, BATCH, job.warmup))


def tried(s, what, part):
    """part(), unless no time is left; what fails is said, and the rest goes on."""
    if s.left() <= 0:
        s.say(**what, not_run="no time left")
        return None
    try:
        return part()
    except (Failed, OSError, ValueError, IndexError, KeyError, statistics.StatisticsError) as e:
        s.say(**what, problem=f"{type(e).__name__}: {str(e)[-1500:]}")
        return None


@functools.cache
def jobs_of(s):
    """Made once: the peers of the next stage start from the same weights."""
    jobs = Jobs(s)
    if s.programs.python:
        jobs.make_weights(60)
    return jobs


def rehearse(s):
    """Plans each job for a GPU, with the settings of its row."""
    jobs, wrong = Jobs(s), []
    for net, precision in ROWS:
        job = jobs.ours_of(net, precision)
        job.settings |= {"hyperparameters.steps": 100, "device": "cpu"}
        done = s.run(job.command("plan", "--device", "cuda"), 15)
        if not done.fine:
            wrong.append(f"{net} {precision}: {done.why()}")
    s.say(wrong_jobs=wrong)
    return f"{len(ROWS)} jobs, {len(ROWS) - len(wrong)} as they should be" + "".join(f"; {w}" for w in wrong)


def work(s):
    jobs = jobs_of(s)
    losses = {}
    for net, precision in ROWS:
        what = {"net": net, "precision": precision}
        if jobs.weights and s.left() < FOR_LOSSES:
            s.say(**what, not_run="no time left")
            continue
        losses[net, precision] = tried(s, what, lambda net=net, precision=precision: row(s, jobs, net, precision))
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for (net, precision), found in losses.items():
            if found and net in jobs.weights:
                pool.submit(tried, s, {"net": net, "precision": precision}, lambda n=net, p=precision, f=found: compare(s, jobs, n, p, f))
    tried(s, {"net": "mnist, 2 ranks"}, lambda: two_ranks(s, jobs))
