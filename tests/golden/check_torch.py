# SPDX-License-Identifier: Apache-2.0
"""Weights between Lockstep and PyTorch, both ways.

    PYTHON tests/golden/check_torch.py --lockstep build/release/lockstep      PYTHON has torch and safetensors
    PYTHON tests/golden/check_torch.py --write                                makes interop.json and digits/

Ours to PyTorch: each net is trained for a moment; load_state_dict(strict=True) takes its model.safetensors, and on the
10,000 test images PyTorch counts as many right as `lockstep evaluate`, to the image, with the same loss; the probabilities
of `lockstep predict` are PyTorch's.
PyTorch's to ours: the state_dict of a module trained there, saved by safetensors.torch, is what a job starts from (init_from, lr 0);
`lockstep evaluate` gives PyTorch's count and loss, and what the run exports is the module's tensors bit for bit.

--write makes what tests/distributed/torch_interop_test.cpp repeats where there is no PyTorch: of training/*-20.safetensors,
which safetensors.torch wrote, PyTorch's loss and count on the first 1,000 test images and its log-probabilities of the
images in digits/.
"""

import argparse
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import zlib

import safetensors.torch
import torch
import torch.nn.functional as F
from torch_nets import MNIST, ConvNet, ConvNetDropout, LayersNet, mnist, read_idx

HERE = pathlib.Path(__file__).resolve().parent
DIGITS = HERE / "digits"
# What both sides round in float32 through two convolutions and a linear layer; relative to log-probabilities near 1 to 10.
LOSS_TOLERANCE, PROBABILITY_TOLERANCE = 2e-6, 2e-6
NORMALIZE = "{mean: 0.1307, std: 0.3081}"
LAYERS_YAML = (HERE / "training" / "layers.yaml").read_text()
NETS = {
    "mnist_convnet": (ConvNet, "  name: mnist_convnet"),
    "mnist_convnet_dropout": (ConvNetDropout, "  name: mnist_convnet_dropout"),
    # What stands below model: in training/layers.yaml.
    "layers": (LayersNet, LAYERS_YAML.split("model:\n")[1].split("inputs:")[0].rstrip()),
}
failures = 0


def check(what, ok, detail):
    global failures
    failures += not ok
    print(f"{'ok    ' if ok else 'FAILED'} {what}: {detail}", flush=True)


def write_png(path, image):
    """A grey image of bytes, [height][width]."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(row) for row in image.tolist())
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def log_probabilities(net, images):
    net.eval()
    with torch.no_grad():
        return torch.cat([F.log_softmax(net(part), dim=1) for part in images.split(1000)])


def score(net, images, labels):
    """Mean loss, images right, and by how much the closest decision was made."""
    out = log_probabilities(net, images)
    top = out.topk(2, dim=1).values
    return F.nll_loss(out.double(), labels).item(), (out.argmax(1) == labels).sum().item(), (top[:, 0] - top[:, 1]).min().item()


def trained(make_net):
    """60 steps in PyTorch."""
    torch.manual_seed(17)
    net = make_net()
    images, labels = mnist("train")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    for step in range(60):
        batch = slice(step * 64, (step + 1) * 64)
        optimizer.zero_grad()
        F.nll_loss(F.log_softmax(net(images[batch]), dim=1), labels[batch]).backward()
        optimizer.step()
    return net


def lockstep(binary, *words):
    result = subprocess.run([str(binary), *map(str, words)], capture_output=True, text=True, timeout=300)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, words))}\nended with code {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def write_job(path, model, steps, lr, init_from=None):
    start = f"  init_from: {init_from}\n" if init_from else ""
    path.write_text(
        f"job_name: interop\ninstance_count: 1\nmodel:\n{model}\n{start}inputs:\n"
        f"  training: {{dataset: mnist, path: {MNIST}, limit: 6400, normalize: {NORMALIZE}}}\n"
        f"hyperparameters: {{steps: {steps}, global_batch_size: 64, seed: 3, optimizer: {{name: sgd, lr: {lr}, momentum: 0.9}}}}\n"
    )


def compare_scores(what, binary, run, net, images, labels):
    ours = json.loads(lockstep(binary, "evaluate", run, "--json"))
    loss, right, margin = score(net, images, labels)
    our_right = round(ours["accuracy"] * ours["count"])
    check(f"{what}: images right", ours["count"] == len(labels) and our_right == right,
          f"{our_right}, PyTorch {right} of {len(labels)} (closest decision by {margin:.1e})")
    check(f"{what}: loss", abs(ours["loss"] - loss) <= LOSS_TOLERANCE * max(1, loss),
          f"{ours['loss']:.8f}, PyTorch {loss:.8f}, apart {abs(ours['loss'] - loss):.1e}")


def compare_predictions(what, binary, run, net, images, digits):
    lines = lockstep(binary, "predict", run, "--json", *digits).splitlines()
    expected = log_probabilities(net, images[: len(digits)]).exp()
    worst = 0.0
    for line, row in zip(lines, expected, strict=True):
        answer = json.loads(line)
        ours = torch.tensor([answer["probabilities"][str(c)] for c in range(10)])
        worst = max(worst, (ours - row).abs().max().item())
        check(f"{what}: class of {pathlib.Path(answer['file']).name}", answer["class"] == str(row.argmax().item()), answer["class"])
    check(f"{what}: probabilities", worst <= PROBABILITY_TOLERANCE, f"apart {worst:.1e} at most")


def both_ways(binary):
    images, labels = mnist("t10k")
    pixels = read_idx(MNIST / "t10k-images-idx3-ubyte")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        digits = [folder / f"digit-{i}.png" for i in range(8)]
        for path, image in zip(digits, pixels):
            write_png(path, image)
        for name, (make_net, model) in NETS.items():
            job, ours, theirs = folder / f"{name}.yaml", folder / f"{name}-ours", folder / f"{name}-theirs"
            write_job(job, model, steps=100, lr=0.02)
            lockstep(binary, "fit", job, "--output", ours)
            net = make_net()
            net.load_state_dict(safetensors.torch.load_file(ours / "model.safetensors"), strict=True)
            compare_scores(f"{name}, ours to PyTorch", binary, ours, net, images, labels)
            compare_predictions(f"{name}, ours to PyTorch", binary, ours, net, images, digits)

            net = trained(make_net)
            weights = folder / f"{name}.safetensors"
            safetensors.torch.save_file(net.state_dict(), weights)
            frozen = model.replace("- batch_norm2d\n", "- batch_norm2d: {momentum: 0}\n")
            write_job(job, frozen, steps=1, lr=0, init_from=weights)
            lockstep(binary, "fit", job, "--output", theirs)
            compare_scores(f"{name}, PyTorch to ours", binary, theirs, net, images, labels)
            back = safetensors.torch.load_file(theirs / "model.safetensors")
            same = all(torch.equal(back[k], v) for k, v in net.state_dict().items() if "num_batches_tracked" not in k)
            check(f"{name}, PyTorch to ours: tensors come back", back.keys() == net.state_dict().keys() and same,
                  f"{len(back)} tensors")


def write():
    images, labels = mnist("t10k")
    pixels = read_idx(MNIST / "t10k-images-idx3-ubyte")
    count, shown = 1000, 4
    DIGITS.mkdir(exist_ok=True)
    for i in range(shown):
        write_png(DIGITS / f"test-{i}.png", pixels[i])
    result = {"torch": torch.__version__, "images": count, "nets": {}}
    for name, file in (("mnist_convnet", "convnet"), ("mnist_convnet_dropout", "convnet_dropout"), ("layers", "layers")):
        net = NETS[name][0]().double()
        weights = f"{file}-sgd-20.safetensors"
        net.load_state_dict(safetensors.torch.load_file(HERE / "training" / weights), strict=True)
        loss, right, margin = score(net, images[:count].double(), labels[:count])
        result["nets"][name] = {
            "weights": weights, "loss": loss, "right": right, "closest_decision": margin,
            "log_probabilities": log_probabilities(net, images[:shown].double()).tolist(),
        }
        print(f"{name}: loss {loss:.6f}, {right} right, closest decision by {margin:.1e}")
    (HERE / "interop.json").write_text(json.dumps(result, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--lockstep", type=pathlib.Path, metavar="BINARY")
    what.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.write:
        write()
    else:
        both_ways(arguments.lockstep)
        print(f"{failures} failed")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
