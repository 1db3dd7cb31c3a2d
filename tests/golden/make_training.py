# SPDX-License-Identifier: Apache-2.0
"""Makes training/*: 100 steps of each net in PyTorch, for tests/distributed/parity_test.cpp.

    ~/.cache/lockstep/peers/bin/python tests/golden/make_training.py      (environment: bench/peers/install)

A case is training/<net>-<optimizer>.json: the loss of every step, the loss and accuracy on the first 1,000 test images
after the last. Beside it lie the tensors before the first step (-init.safetensors) and after 20 (-20.safetensors).
Batch s is training images 64 s to 64 s + 63.

Where the two largest values of a pooling window are all but equal, or a ReLU's input all but 0, rounding decides which
way the gradient goes, and two correct programs part from there on (by up to 2 % in the loss after 100 steps). Such a
run can compare nothing, so the seed is the first whose run has no such place: float64 gives the same losses within
MAX_DRIFT, and so do runs whose weights are disturbed after every step by NOISE, a few times what float32 rounds.
`drift` in the file is the largest relative difference seen.
"""

import copy
import json
import math
import pathlib

import safetensors.torch
import torch
import torch.nn.functional as F
from torch_nets import ConvNet, ConvNetDropout, LayersNet, mnist

HERE = pathlib.Path(__file__).parent / "training"
MAX_DRIFT, NOISE, NOISY_RUNS = 3e-5, 2e-7, 4
BATCH, STEPS, WARMUP, WEIGHTS_AT, TEST_IMAGES = 64, 100, 10, 20, 1000
NETS = {"convnet": ConvNet, "convnet_dropout": lambda: ConvNetDropout(p=0), "layers": LayersNet}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.0005),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.002, weight_decay=0.01),
}


def lr_scale(step):
    """Cosine after a linear warm-up."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def train(net, make_optimizer, dtype, data, noise=0.0):
    """Losses of the steps, tensors at WEIGHTS_AT, loss and accuracy on the test images."""
    images, labels, test_images, test_labels = data
    net = net.to(dtype)
    optimizer = make_optimizer(net.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_scale)
    net.train()
    losses, weights = [], None
    for step in range(STEPS):
        batch = slice(step * BATCH, (step + 1) * BATCH)
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images[batch].to(dtype)), labels[batch])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if noise:
            with torch.no_grad():
                for p in net.parameters():
                    p.mul_(1 + noise * torch.randn_like(p))
        losses.append(loss.item())
        if step + 1 == WEIGHTS_AT:
            weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.eval()
    with torch.no_grad():
        out = net(test_images.to(dtype))
    accuracy = (out.argmax(1) == test_labels).double().mean().item()
    return losses, weights, F.cross_entropy(out, test_labels).item(), accuracy


def find_case(make_net, make_optimizer, data):
    """The first seed without a place where rounding decides: (seed, drift, initial net, its run)."""
    for seed in range(1, 100):
        torch.manual_seed(seed)
        net = make_net()
        run = train(copy.deepcopy(net), make_optimizer, torch.float32, data)
        drift = 0.0
        for other in range(1 + NOISY_RUNS):
            dtype, noise = (torch.float64, 0.0) if other == 0 else (torch.float32, NOISE)
            losses, *_ = train(copy.deepcopy(net), make_optimizer, dtype, data, noise)
            drift = max(drift, *(abs(a - b) / b for a, b in zip(losses, run[0])))
            if drift > MAX_DRIFT:
                break
        else:
            return seed, drift, net, run
        print(f"  seed {seed}: drift {drift:.1e}", flush=True)
    raise SystemExit("no seed without such a place")


def main():
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    images, labels = mnist("train")
    test_images, test_labels = mnist("t10k")
    data = (images[: BATCH * STEPS], labels[: BATCH * STEPS], test_images[:TEST_IMAGES], test_labels[:TEST_IMAGES])
    for net_name, make_net in NETS.items():
        for optimizer_name, make_optimizer in OPTIMIZERS.items():
            name = f"{net_name}-{optimizer_name}"
            seed, drift, net, (losses, weights, test_loss, accuracy) = find_case(make_net, make_optimizer, data)
            safetensors.torch.save_file(net.state_dict(), HERE / f"{name}-init.safetensors")
            safetensors.torch.save_file(weights, HERE / f"{name}-{WEIGHTS_AT}.safetensors")
            result = {"torch": torch.__version__, "seed": seed, "drift": drift}
            result.update(test_loss=test_loss, test_accuracy=accuracy, losses=losses)
            (HERE / f"{name}.json").write_text(json.dumps(result, indent=0) + "\n")
            print(f"{name}: seed {seed}, loss {losses[0]:.4f} -> {losses[-1]:.4f}, test {accuracy:.4f}, drift {drift:.1e}",
                  flush=True)


if __name__ == "__main__":
    main()
