# SPDX-License-Identifier: Apache-2.0
"""The rows of bench/run's first table: what is measured, on our side and the other's."""

import dataclasses
import json
import statistics
import typing

import figures
import limits as machine_limits
import step_split
from harness import other_work
from ours import Training
from pytorch import same_losses
from serving import serve_rows
from text_to_image import Painter, Pipeline


@dataclasses.dataclass
class Row:
    name: str
    unit: str
    ours: typing.Callable  # (repeat) -> figure
    peer: typing.Callable | None = None  # the same
    against: str = "PyTorch"
    repeats: int = 5
    training: Training | None = None  # what ours() fits: for its FLOPs and the split of its step


UNET = "the DDPM paper's CIFAR-10 UNet"


def unet_batch(ours):
    return 2 if ours.quick else 16


def mnist_rows(ours, peer, wanted):
    for name, shape in {
        "train mnist_convnet_dropout, 2 ranks, 64 a rank": (2, 1, 128, 469),
        "train mnist_convnet_dropout, 2 ranks, 512 a rank": (2, 1, 1024, 174),
        "train mnist_convnet_dropout, one rank, two threads, batch 128": (1, 2, 128, 469),
    }.items():
        if not wanted(name):
            continue
        training = ours.mnist(*shape)
        steps = training.settings["hyperparameters.steps"]
        yield Row(name, "samples/s", lambda _, t=training: ours.rate(t),
                  peer and (lambda _, s=shape, n=steps: peer.mnist_rate(*s[:3], n)), training=training)  # fmt: skip


def busy_rows(ours, peer, wanted):
    """Beside other work, against the same beside none, and against PyTorch beside the same."""
    name = "train mnist_convnet_dropout, one rank, two threads, batch 128, beside two computing processes"
    shape = (1, 2, 128, 469)
    training = ours.mnist(*shape)

    def beside(measure):
        with other_work():
            return measure()

    if wanted(name):
        yield Row(name, "samples/s", lambda _: beside(lambda: ours.rate(training)), lambda _: ours.rate(training),
                  "Lockstep beside none")  # fmt: skip
    name += ", and PyTorch"
    if wanted(name) and peer:
        steps = training.settings["hyperparameters.steps"]
        yield Row(name, "samples/s", lambda _: beside(lambda: ours.rate(training)),
                  lambda _: beside(lambda: peer.mnist_rate(*shape[:3], steps)))  # fmt: skip


def accuracy_rows(ours, peer, wanted):
    accuracy, limit = (0.5, 12800) if ours.quick else (0.98, 0)
    name = f"start to {100 * accuracy:.0f} % of the test images, configs/mnist_cnn.yaml, 2 ranks, a seed each"
    if wanted(name):
        yield Row(name, "s", lambda i: ours.until_accuracy(accuracy, i + 1, limit),
                  peer and (lambda i: peer.until_accuracy(accuracy, i + 1, limit)))  # fmt: skip
    name = "test accuracy of configs/mnist_article.yaml, a seed each"
    if wanted(name) and not ours.quick:
        yield Row(name, "%", lambda i: ours.accuracy(i + 1), peer and (lambda i: peer.accuracy(i + 1)))


def image_rows(ours, peer, wanted):
    for net, model, batch in [("ResNet-18 for CIFAR-10", "resnet18", 4 if ours.quick else 64), (UNET, "ddpm_cifar10", unet_batch(ours))]:
        for precision in ("fp32", "bf16"):
            name = f"train {net}, one rank, two threads, batch {batch}, {precision}"
            if not wanted(name):
                continue
            training = ours.images(model, batch, precision, peer and peer.weights(model))
            yield Row(name, "images/s", lambda _, t=training: ours.rate(t),
                      peer and (lambda _, m=model, t=training: peer.images_rate(m, t)), training=training)  # fmt: skip


def rank_rows(ours, peer, wanted):
    """Two ranks against one with as many threads: both ours."""
    batch = unet_batch(ours)
    name = f"train {UNET}, two ranks of {batch // 2}, fp32"
    if not wanted(name):
        return
    weights = peer and peer.weights("ddpm_cifar10")
    two = ours.images("ddpm_cifar10", batch, "fp32", weights, ranks=2, threads=1)
    one = ours.images("ddpm_cifar10", batch, "fp32", weights)

    def measure_one(_):
        rate = ours.rate(one)
        same_losses("two ranks and one", two.losses, one.losses)
        return rate

    yield Row(name, "images/s", lambda _: ours.rate(two), measure_one, f"Lockstep, one rank of {batch}, two threads", training=two)


def sample_rows(ours, peer, wanted):
    count, steps = (2, 3) if ours.quick else (16, 20)
    raw, noise = ours.scratch / "images.safetensors", ours.scratch / "noise.safetensors"
    for precision in ("fp32", "bf16"):
        name = f"sample {UNET}, {count} images, {steps} steps of DDIM, two threads, {precision}"
        if not wanted(name):
            continue
        folder = peer.weights("ddpm_cifar10") if peer else ours.trained_unet()
        yield Row(name, "images/s", lambda _, f=folder, p=precision: ours.sample(f, count, steps, p, raw, noise),
                  peer and (lambda _, p=precision: peer.sample(count, steps, p, raw, noise)))  # fmt: skip


def start_rows(ours, peer, wanted):
    name = "start to first step, 2 ranks, warm caches"
    if wanted(name):
        yield Row(name, "s", lambda _: ours.start(False), peer and (lambda _: peer.start()))
    name = "start to first step, 2 ranks, no caches of ours"
    if wanted(name):
        yield Row(name, "s", lambda _: ours.start(True))


def memory_rows(ours, peer, wanted):
    name = "peak memory (PSS), one of 2 ranks of mnist_convnet_dropout, 64 a rank"
    if wanted(name):
        mnist = ours.mnist(2, 1, 128, 469)
        yield Row(name, "MB", lambda _: ours.peak_memory(mnist),
                  peer and (lambda _: peer.mnist_memory(mnist.settings["hyperparameters.steps"])))  # fmt: skip
    batch = unet_batch(ours)
    name = f"peak memory (PSS), training {UNET}, batch {batch}, fp32"
    if wanted(name):
        unet = ours.images("ddpm_cifar10", batch, "fp32", peer and peer.weights("ddpm_cifar10"))
        yield Row(name, "MB", lambda _: ours.peak_memory(unet), peer and (lambda _: peer.images_memory("ddpm_cifar10", unet)))


def pipeline_rows(ours, peer, wanted):
    if not peer:  # which makes the weights
        return
    p = Pipeline(ours, peer)
    picture = f"a picture of a prompt, {p.size}×{p.size}, {p.steps} steps of DPM-Solver++, guidance, SD 1.5's size, two threads, fp32"
    for name, unit, mine, its in [
        (f"UNet of SD 1.5, one call, {p.size // 8}×{p.size // 8} latents, batch 2, two threads, fp32", "s",
         lambda _: p.ours_asked("denoise"), lambda _: p.peer_asked("denoise")),
        (f"decoder of SD 1.5, {p.size}×{p.size}, two threads, fp32", "s", lambda _: p.ours_asked("decode"), lambda _: p.peer_asked("decode")),
        (picture, "s", lambda _: p.ours_drawn(), lambda _: p.peer_drawn()),
        (f"peak memory (PSS) of such a picture, {p.size}×{p.size}", "MB", lambda _: p.ours_memory(), lambda _: p.peer_memory()),
        ("from its folder to the first denoising step, warm caches", "s", lambda _: p.ours_opened(), lambda _: p.peer_opened()),
    ]:  # fmt: skip
        if wanted(name):
            yield Row(name, unit, mine, its, "diffusers", repeats=3)


def painter_rows(ours, peer, wanted):
    for batch in (16, 4):  # of a rank; 4: the job's own
        name = f"train configs/painter_digits.yaml's nets, 2 ranks of {batch}, fp32"
        if wanted(name):
            painter = Painter(ours, peer, 2 * batch)
            yield Row(name, "images/s", lambda _, p=painter: ours.rate(p.training), peer and (lambda _, p=painter: p.peer_rate()),
                      "PyTorch, diffusers", training=painter.training)  # fmt: skip


def rows(ours, peer, wanted):
    """Those whose names are wanted; peer: None where there is none."""
    for family in (mnist_rows, busy_rows, accuracy_rows, image_rows, rank_rows, sample_rows, start_rows, memory_rows,
                   pipeline_rows, painter_rows, serve_rows):
        yield from family(ours, peer, wanted)


HEAD = ("| what | unit | Lockstep: median (range) | against | its median (range) | ratio (of pairs) | direct convolution at peak |\n"
        "| --- | --- | ---: | --- | ---: | ---: | ---: |")  # fmt: skip


def of_peak(training, rate, limits):
    """What the peak allows by each op's definition, and what part of it was reached. Winograd may pass it."""
    gflops, dtype = machine_limits.peak(limits, training.threads, training.precision)
    most = gflops * 1e9 / training.flops_of_a_sample()
    return {"dtype": dtype, "gflops": gflops, "rate": most, "percent": 100 * rate / most}


def measure(row, repeats, ours, limits):
    """One row's results; ours and the peer's runs take turns. What runs first is not counted, as it makes the caches of data
    and kernel choices; of training it leaves a trace."""
    split, mine, theirs = {}, [], []
    if row.training:
        trace = ours.scratch / "trace.json"
        first = row.training.rate(ours.folder(), trace)
        split = step_split.split(json.loads(trace.read_text()))
    else:
        first = row.ours(0)
    for repeat in range(repeats):
        mine.append(first if ours.quick else row.ours(repeat))
        if row.peer:
            theirs.append(row.peer(repeat))
    return {"unit": row.unit, "lockstep": mine, "against": row.against, "peer": theirs,
            "ratio": figures.ratios(mine, theirs, row.unit), "step_ms": split,
            "peak": of_peak(row.training, statistics.median(mine), limits) if row.training else None}  # fmt: skip


def line(name, r):
    peak = r["peak"]
    allows = f"{figures.shown_one(peak['rate'], r['unit'])} ({peak['dtype']}): {peak['percent']:.0f} %" if peak else "–"
    against = r["against"] if r["peer"] else "–"
    return (f"| {name} | {r['unit']} | {figures.shown(r['lockstep'], r['unit'])} | {against} | {figures.shown(r['peer'], r['unit'])} | "
            f"{figures.ratio_text(r['ratio'], r['unit'], r['against'])} | {allows} |")  # fmt: skip
