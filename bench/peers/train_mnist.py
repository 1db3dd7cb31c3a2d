# SPDX-License-Identifier: Apache-2.0
"""PyTorch's side of the MNIST benches: the same nets, data and hyperparameters, data-parallel over gloo.

    python bench/peers/train_mnist.py --model mnist_convnet_dropout --make WEIGHTS          random weights to start from
    python bench/peers/train_mnist.py --model mnist_convnet_dropout --ranks 2 --batch 128 --steps 469
    python bench/peers/train_mnist.py --model mnist_convnet_dropout --ranks 2 --steps 2814 --lr 0.05 --momentum 0.9 \\
        --cosine-after 50 --until 0.98

Starts its ranks itself (no torchrun), each with --threads threads; the images are normalised tensors in memory before the
first step. A line `first step` is printed after the first one, and with --until a line `reached` when the share of the
10,000 test images that are read right after an epoch is that; it then ends. The last line is a JSON object:
samples_per_second after --warmup steps, losses (the mean over each batch, of the first --steps steps), test_accuracy, epochs,
torch.
"""

import argparse
import math
import pathlib
import sys

from ranks import exact_fp32, run_ranks, steps_after

ROOT = pathlib.Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["mnist_convnet", "mnist_convnet_dropout"], required=True)
    parser.add_argument("--make", metavar="WEIGHTS")
    parser.add_argument("--from", dest="weights", metavar="WEIGHTS")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: one rank; the data set lies there")
    parser.add_argument("--compile", nargs="?", const="max-autotune", metavar="MODE", help="the net through torch.compile; default max-autotune")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="bf16: by autocast")
    parser.add_argument("--seconds", type=float, default=0, help="one rank: after the warm-up, at least so long; --steps at least too")
    parser.add_argument("--batch", type=int, default=128, help="over all ranks")
    parser.add_argument("--steps", type=int, default=469)
    parser.add_argument("--warmup", type=int, default=50, help="steps before the clock starts")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--momentum", type=float, default=0.5)
    parser.add_argument("--cosine-after", type=int, metavar="STEPS", help="the rate rises for so many steps, then falls as a cosine")
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--limit", type=int, help="only the first so many training images")
    parser.add_argument("--in-order", action="store_true", help="the images as they lie")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", default=str(ROOT / "configs" / "data" / "mnist"))
    parser.add_argument("--until", type=float, metavar="ACCURACY", help="test after every epoch")
    parser.add_argument("--no-test", action="store_true", help="leave out the test at the end")
    return parser.parse_args()


def train(a, rank, ranks):
    import json
    import time

    sys.path.insert(0, str(ROOT / "tests" / "golden"))
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F
    from torch.nn.parallel import DistributedDataParallel
    from torch_nets import ConvNet, ConvNetDropout, mnist

    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    exact_fp32(torch)
    if ranks > 1:
        dist.init_process_group("gloo")
    net = (ConvNet() if a.model == "mnist_convnet" else ConvNetDropout(a.dropout)).to(a.device)
    if a.make or a.weights:
        from safetensors.torch import load_file, save_file

        if a.make:
            save_file(net.state_dict(), a.make)
            return
        net.load_state_dict(load_file(a.weights))
    model = DistributedDataParallel(net) if ranks > 1 else net
    loss_of = F.cross_entropy if a.model == "mnist_convnet" else F.nll_loss
    optimizer = torch.optim.SGD(model.parameters(), lr=a.lr, momentum=a.momentum)
    schedule = None
    if a.cosine_after is not None:
        w = a.cosine_after
        share_of_lr = lambda s: (s + 1) / w if s < w else 0.5 * (1 + math.cos(math.pi * (s - w) / (a.steps - w)))  # noqa: E731
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_lr)
    if a.compile:
        model = torch.compile(model, mode=a.compile)
    images, labels = (t[: a.limit].to(a.device) for t in mnist("train", a.data))
    test_images, test_labels = (None, None) if a.no_test else (t.to(a.device) for t in mnist("t10k", a.data))

    def accuracy():
        """Of the test images, which the ranks share."""
        net.eval()
        with torch.no_grad():
            right = (net(test_images[rank::ranks]).argmax(1) == test_labels[rank::ranks]).sum()
        net.train()
        if ranks > 1:
            dist.all_reduce(right)
        return right.item() / len(test_labels)

    assert a.batch % ranks == 0, "--batch must be a multiple of --ranks"
    torch.manual_seed(1000 * a.seed + rank)  # dropout's draws
    order_of = torch.Generator()
    per_epoch = -(-len(images) // a.batch)
    losses, started, seconds, reached, step, last = [], None, None, None, 0, a.steps
    wait = torch.cuda.synchronize if a.device == "cuda" else lambda: None
    model.train()
    while step < last and reached is None:
        if step == a.warmup:
            wait()
            started = time.perf_counter()
        if step % per_epoch == 0:
            order = torch.randperm(len(images), generator=order_of.manual_seed(a.seed + step // per_epoch)).to(a.device)
            if a.in_order:
                order = order.sort().values
        begin = step % per_epoch * a.batch
        index = order[begin : begin + a.batch][rank::ranks]
        optimizer.zero_grad()
        with torch.autocast(a.device, dtype=torch.bfloat16, enabled=a.precision == "bf16"):
            out = model(images[index])
        loss = loss_of(out.float(), labels[index])
        loss.backward()
        optimizer.step()
        if schedule:
            schedule.step()
        if step < a.steps:
            losses.append(loss.detach())
        if step == 0 and rank == 0:
            print("first step", flush=True)
        step += 1
        if a.until is not None and step % per_epoch == 0 and accuracy() >= a.until:
            reached = step // per_epoch
            if rank == 0:
                print("reached", flush=True)
        if started and (step == last or reached is not None):
            wait()
            seconds = time.perf_counter() - started
            last = steps_after(step, a.warmup, seconds, a.seconds)
    losses = torch.stack(losses)
    if ranks > 1:
        dist.all_reduce(losses)
        losses /= ranks
    tested = None if a.no_test else accuracy()
    if rank == 0:
        print(json.dumps({"torch": torch.__version__, "samples_per_second": (step - a.warmup) * a.batch / seconds if seconds else None,
                          "losses": [round(x, 6) for x in losses.tolist()], "test_accuracy": tested, "epochs": reached}), flush=True)  # fmt: skip


def main():
    a = arguments()
    if a.device == "cuda" and a.ranks > 1:
        sys.exit("train_mnist.py: --device cuda takes --ranks 1")
    run_ranks(1 if a.make else a.ranks, lambda rank, ranks: train(a, rank, ranks))


if __name__ == "__main__":
    main()
