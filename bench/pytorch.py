# SPDX-License-Identifier: Apache-2.0
"""PyTorch's side of the rows of bench/run (bench/peers/), checked to be the same work before it is timed."""

import functools
import json

from harness import ROOT, Failed, run
from ours import WARMUP, images_per_second, seconds_until
from process_memory import peak_pss

MNIST = [ROOT / "bench/peers/train_mnist.py", "--model", "mnist_convnet_dropout"]
IMAGES = ROOT / "bench/peers/train_images.py"
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2}  # relative, of losses on the same weights: rounding only
LAYOUTS = ([], ["--channels-last"])

# mnist_convnet_dropout without its dropout, whose draws differ on the two sides.
NET_WITHOUT_DROPOUT = """[{conv2d: {out_channels: 10, kernel: 5, name: conv1}}, max_pool2d: 2, relu,
 {conv2d: {out_channels: 20, kernel: 5, name: conv2}}, max_pool2d: 2, relu, flatten,
 {linear: {out_features: 50, name: fc1}}, relu, {linear: {out_features: 10, name: fc2}}, log_softmax]"""


def same_losses(what, ours, theirs, precision="fp32"):
    for step, (a, b) in enumerate(zip(ours, theirs), 1):
        if abs(a - b) > LOSS_TOLERANCE[precision] * abs(b):
            raise Failed(f"{what}: the loss of step {step} is {a} here and {b} there: not the same work")


class PyTorch:
    def __init__(self, python, ours):
        self.python = python
        self.ours = ours
        self.layout = {}  # of a kind of work, where it is known

    def json_of(self, *words):
        return json.loads(run([self.python, *words]).splitlines()[-1])

    # MNIST

    @functools.cached_property
    def checked_mnist(self):
        """Twenty steps of the same weights and images lose the same on both sides."""
        weights = self.ours.scratch / "mnist.safetensors"
        run([self.python, *MNIST, "--make", weights])
        training = self.ours.mnist(2, 1, 128, 20)
        model = f"{{init_from: {weights}, layers: {' '.join(NET_WITHOUT_DROPOUT.split())}}}"
        training.settings |= {"model": model, "hyperparameters.steps": 20, "hyperparameters.shuffle": "false", "log_every": 1}
        training.warmup = 0
        self.ours.rate(training)
        words = ["--from", weights, "--dropout", 0, "--in-order", "--ranks", 2, "--batch", 128, "--steps", 20, "--no-test"]
        same_losses("mnist_convnet_dropout", training.losses, self.json_of(*MNIST, *words)["losses"])
        return True

    def mnist_rate(self, ranks, threads, batch, steps):
        assert self.checked_mnist
        words = ["--ranks", ranks, "--threads", threads, "--batch", batch, "--steps", steps, "--warmup", WARMUP, "--no-test"]
        return self.json_of(*MNIST, *words)["samples_per_second"]

    def mnist_memory(self, steps):
        return peak_pss([self.python, *MNIST, "--ranks", 2, "--batch", 128, "--steps", steps]) / 1e6

    def start(self):
        return seconds_until([self.python, *MNIST, "--ranks", 2, "--steps", 1, "--no-test"], lambda p: said(p, "first step"))

    def until_accuracy(self, accuracy, seed, limit):
        """With the hyperparameters of configs/mnist_cnn.yaml."""
        epochs, batch, images = 6, 128, limit or 60000
        words = ["--ranks", 2, "--batch", batch, "--steps", epochs * -(-images // batch), "--lr", 0.05, "--momentum", 0.9,
                 "--cosine-after", 50, "--until", accuracy, "--seed", seed, "--limit", images]  # fmt: skip
        return seconds_until([self.python, *MNIST, *words], lambda p: said(p, "reached"))

    def accuracy(self, seed):
        return 100 * self.json_of(*MNIST, "--ranks", 2, "--batch", 128, "--steps", 469, "--seed", seed)["test_accuracy"]

    # ResNet-18 and the UNet

    def narrow(self):
        return ["--narrow"] if self.ours.quick else []

    @functools.cache
    def weights(self, model):
        """Both sides start from the same ones: a file, of the UNet a folder of diffusers."""
        path = self.ours.scratch / f"{model}.safetensors"
        path = path if model == "resnet18" else self.ours.scratch / model
        run([self.python, IMAGES, "--model", model, *self.narrow(), "--make", self.file_of(path)])
        return path

    @staticmethod
    def file_of(weights):
        return weights if weights.suffix else weights / "unet"

    def image_words(self, model, batch, precision):
        return [IMAGES, "--model", model, *self.narrow(), "--from", self.file_of(self.weights(model)), "--batch", batch,
                "--precision", precision]  # fmt: skip

    def best(self, work, measure, better=max):
        """Of both layouts, once it is known the better alone."""
        found = [(measure(layout), layout) for layout in ([self.layout[work]] if work in self.layout else LAYOUTS)]
        value, self.layout[work] = better(found, key=lambda f: f[0])
        return value

    def images_rate(self, model, training):
        """After `training` was run: its first loss must be that of the peer."""
        words = self.image_words(model, training.batch, training.precision)
        words += ["--pictures", self.ours.pictures, "--steps", self.ours.image_steps]

        def measure(layout):
            result = self.json_of(*words, *layout)
            same_losses(f"{model} {training.precision}", training.losses[:1], result["losses"], training.precision)
            return images_per_second(training.batch, result["seconds"])

        return self.best((model, training.batch, training.precision), measure)

    def images_memory(self, model, training):
        words = self.image_words(model, training.batch, training.precision)
        words += ["--pictures", self.ours.pictures, "--steps", self.ours.image_steps]
        return self.best((model, "memory"), lambda layout: peak_pss([self.python, *words, *layout]) / 1e6, min)

    def sample(self, count, steps, precision, raw, noise):
        """Images a second from the noise that ours began with; in fp32 the pictures must be ours.

        Random weights magnify rounding over the steps: in root mean square PyTorch's own pictures in float32 and float64 part
        by 0.0007 of a pixel's range, and pictures in bf16 are others altogether. What bf16 computes is compared where it trains.
        """
        words = [*self.image_words("ddpm_cifar10", count, precision), "--sample", steps, "--init-noise", noise, "--compare", raw]

        def measure(layout):
            result = self.json_of(*words, *layout)
            if precision == "fp32" and result["difference"] > 1 / 255:
                raise Failed(f"DDIM, {precision}: pixels differ by {result['difference']:.4f} from ours: not the same work")
            return count / result["seconds"]

        return self.best(("sample", precision), measure)


def said(process, words):
    return any(line.strip() == words for line in process.stdout)
