# SPDX-License-Identifier: Apache-2.0
"""Makes resnet.json: torchvision's ResNets, forward and backward, for tests/models/resnet_test.cpp.

    ~/.cache/lockstep/peers/bin/python tests/golden/make_resnet.py      (environment: bench/peers/install)

Weights, images and the gradient of the logits come from draw(), which the test computes too. Everything is computed in
float64, in training mode. Of the logits all numbers are kept; of each gradient and of each running statistic after the
step its length, its product with a vector that draw() gives, and its first, middle and last number. `float32` is how
far PyTorch's own float32 is from that: the largest difference, relative to the length or the largest logit. (The
gradient of a bias before a 1x1 convolution and batch norm is all but 0; what is left of it is rounding of terms like
those of the weight's gradient beside it, so that its length counts.)

Where a ReLU's input is all but 0, rounding decides which way the gradient goes, and one such place moves a gradient by
a percent: batch norm's weights are small and its biases are not, so that there are few, and the images are the first
whose float32 gradients lie within MAX_DRIFT.
"""

import json
import math
import pathlib

import numpy
import torch
import torchvision

CLASSES = 10
# Model, whether with the CIFAR stem (a 3x3 convolution by 1 instead of the 7x7 by 2, no pooling), images.
CASES = {
    "resnet18-cifar": ("resnet18", True, (4, 3, 32, 32)),
    "resnet50-imagenet": ("resnet50", False, (4, 3, 64, 64)),
}
LOGITS, PROJECTION, IMAGES = 1000, 2000, 3000  # numbers of draws beside those of the tensors
MAX_DRIFT = 1e-4


def draw(number, shape):
    """Uniform in [-1, 1): 24 bits of a hash of (number, index)."""
    x = numpy.arange(math.prod(shape), dtype=numpy.uint32) * numpy.uint32(2654435761)
    x += numpy.uint32(number * 40503 + 1)
    x ^= x >> 15
    x *= numpy.uint32(2246822519)
    x ^= x >> 13
    x *= numpy.uint32(3266489917)
    x ^= x >> 16
    return torch.from_numpy(((x >> 8).astype(numpy.float64) / 2**23 - 1).reshape(shape))


def values_of(number, name, like):
    """Tensor `number` of the model, rounded to float32."""
    u = draw(number, like.shape)
    if like.dim() > 1:
        return (u * math.sqrt(6 / math.prod(like.shape[1:]))).float()
    if name.endswith("running_var"):
        return (1 + 0.3 * u).float()
    if name.endswith("running_mean") or name.startswith("fc"):
        return (0.2 * u).float()
    if name.endswith("weight"):
        return (0.2 + 0.06 * u).float()
    return (0.4 * u + 0.6 * u.sign()).float()


def make(model, cifar):
    net = getattr(torchvision.models, model)(num_classes=CLASSES)
    if cifar:
        net.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        net.maxpool = torch.nn.Identity()
    return net


def run(model, cifar, shape, seed, dtype):
    net = make(model, cifar)
    state = net.state_dict()
    floats = [name for name, t in state.items() if t.is_floating_point()]
    for number, name in enumerate(floats):
        state[name] = values_of(number, name, state[name])
    net.load_state_dict(state)
    net = net.to(dtype).train()
    logits = net(draw(IMAGES + seed, shape).to(dtype))
    logits.backward(draw(LOGITS, logits.shape).to(dtype))
    results = {f"grad.{name}": p.grad for name, p in net.named_parameters()}
    results.update({name: b for name, b in net.named_buffers() if b.is_floating_point()})
    return logits.detach().double(), {name: t.double() for name, t in results.items()}, floats


def summary(number, t):
    flat = t.flatten()
    return {
        "length": flat.norm().item(),
        "product": (flat * draw(PROJECTION + number, flat.shape)).sum().item(),
        "numbers": [flat[i].item() for i in (0, len(flat) // 2, len(flat) - 1)],
    }


def main():
    golden = {"torchvision": torchvision.__version__, "cases": {}, "shapes": {}}
    for model in ("resnet18", "resnet34", "resnet50"):
        golden["shapes"][model] = [[n, list(t.shape)] for n, t in make(model, False).state_dict().items()]
    for name, (model, cifar, shape) in CASES.items():
        for seed in range(100):
            logits, results, floats = run(model, cifar, shape, seed, torch.float64)
            logits32, results32, _ = run(model, cifar, shape, seed, torch.float32)
            length = {k: t.norm().item() for k, t in results.items()}
            distance = {
                k: (results32[k] - t).norm().item() / max(length[k], length[k.replace(".bias", ".weight")])
                for k, t in results.items()
            }
            drift = {
                "logits": ((logits32 - logits).abs().max() / logits.abs().max()).item(),
                "gradients": max(d for k, d in distance.items() if k.startswith("grad.")),
                "statistics": max(d for k, d in distance.items() if not k.startswith("grad.")),
            }
            print(name, seed, drift, flush=True)
            if drift["gradients"] < MAX_DRIFT:
                break
        else:
            raise SystemExit("no images without such a place")
        golden["cases"][name] = {
            "images": shape,
            "seed": seed,
            "float32": drift,
            "logits": logits.tolist(),
            # By the tensor's number, so that no two products share a vector.
            "results": {k: summary(floats.index(k.removeprefix("grad.")), t) for k, t in results.items()},
        }
    text = json.dumps(golden, indent=0).replace(",\n", ", ").replace("[\n", "[").replace("\n]", "]")
    (pathlib.Path(__file__).parent / "resnet.json").write_text(text.replace('"cases"', '\n"cases"') + "\n")


if __name__ == "__main__":
    main()
