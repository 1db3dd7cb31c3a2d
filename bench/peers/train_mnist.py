"""PyTorch's side of the MNIST benches: the same nets, data and hyperparameters, data-parallel over gloo.

    python bench/peers/train_mnist.py --model mnist_convnet_dropout --ranks 2 --batch 128 --steps 469

Starts its ranks itself (no torchrun), each with --threads threads; the images are normalised tensors in memory before the
first step. A line `first step` is printed after the first one; the last line is a JSON object: samples_per_second after
--warmup steps, losses (rank 0's share of each batch), test_accuracy of the 10,000 test images, torch.
"""

import argparse
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["mnist_convnet", "mnist_convnet_dropout"], required=True)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: one rank; the data set lies there")
    parser.add_argument("--compile", action="store_true", help="the step through torch.compile (max-autotune)")
    parser.add_argument("--batch", type=int, default=128, help="over all ranks")
    parser.add_argument("--steps", type=int, default=469)
    parser.add_argument("--warmup", type=int, default=50, help="steps before the clock starts")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--momentum", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", default=str(ROOT / "configs" / "data" / "mnist"))
    parser.add_argument("--no-test", action="store_true", help="leave out the test at the end")
    return parser.parse_args()


def start_ranks(ranks):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [subprocess.Popen([sys.executable, *sys.argv], env={**common, "RANK": str(rank)}) for rank in range(ranks)]
    return max(abs(process.wait()) for process in started)


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
    if ranks > 1:
        dist.init_process_group("gloo")
    net = (ConvNet() if a.model == "mnist_convnet" else ConvNetDropout()).to(a.device)
    model = DistributedDataParallel(net) if ranks > 1 else net
    loss_of = F.cross_entropy if a.model == "mnist_convnet" else F.nll_loss
    optimizer = torch.optim.SGD(model.parameters(), lr=a.lr, momentum=a.momentum)
    if a.compile:
        model = torch.compile(model, mode="max-autotune")
    images, labels = (t.to(a.device) for t in mnist("train", a.data))
    share = a.batch // ranks
    assert share * ranks == a.batch, "--batch must be a multiple of --ranks"
    torch.manual_seed(1000 * a.seed + rank)  # dropout's draws
    order_of = torch.Generator()
    per_epoch = len(images) // a.batch
    losses, started = [], None
    wait = torch.cuda.synchronize if a.device == "cuda" else lambda: None
    model.train()
    for step in range(a.steps):
        if step == a.warmup:
            wait()
            started = time.perf_counter()
        if step % per_epoch == 0:
            order = torch.randperm(len(images), generator=order_of.manual_seed(a.seed + step // per_epoch)).to(a.device)
        begin = (step % per_epoch) * a.batch + rank * share
        index = order[begin : begin + share]
        optimizer.zero_grad()
        loss = loss_of(model(images[index]), labels[index])
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if step == 0 and rank == 0:
            print("first step", flush=True)
    wait()
    seconds = time.perf_counter() - started if started else None
    if rank != 0:
        return
    result = {"torch": torch.__version__, "samples_per_second": (a.steps - a.warmup) * a.batch / seconds if seconds else None}
    result["losses"] = [round(x.item(), 6) for x in losses]
    if not a.no_test:
        net.eval()
        test_images, test_labels = (t.to(a.device) for t in mnist("t10k", a.data))
        with torch.no_grad():
            result["test_accuracy"] = (net(test_images).argmax(1) == test_labels).double().mean().item()
    print(json.dumps(result), flush=True)


def main():
    a = arguments()
    if a.device == "cuda" and a.ranks > 1:
        sys.exit("train_mnist.py: --device cuda takes --ranks 1")
    if "RANK" in os.environ:
        train(a, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    elif a.ranks > 1:
        sys.exit(start_ranks(a.ranks))
    else:
        train(a, 0, 1)


if __name__ == "__main__":
    main()
