# SPDX-License-Identifier: Apache-2.0
"""gloo's side of the allreduce bench: torch.distributed.all_reduce, as DistributedDataParallel calls it, in the columns of
bench/allreduce.cpp and by its rules.

    python bench/peers/allreduce.py --ranks 2 --minimum 1024 --maximum 67108864

Every rank writes its gradients anew before each call (not timed); time is the mean, and the slowest rank's; #wrong: elements,
over all ranks, that are not the sum worked out without communicating.
"""

import argparse
import time

from ranks import run_ranks


def gradients(torch, rank, count):
    return (torch.arange(count, dtype=torch.int64).add_(3 * rank) % 7).float()


def measure(torch, dist, rank, ranks, count, iterations, warm_up):
    fresh = gradients(torch, rank, count)
    data = torch.empty(count)
    seconds = 0.0
    for i in range(-warm_up, iterations):
        data.copy_(fresh)
        dist.barrier()
        started = time.perf_counter()
        dist.all_reduce(data)
        if i >= 0:
            seconds += time.perf_counter() - started
    expected = sum(gradients(torch, r, count) for r in range(ranks))
    wrong = torch.tensor([float((data != expected).sum())], dtype=torch.float64)
    slowest = torch.tensor([seconds / iterations], dtype=torch.float64)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    dist.all_reduce(wrong)
    return slowest.item(), int(wrong.item())


def bench(a, rank, ranks):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    size = a.minimum
    while size <= a.maximum:
        seconds, wrong = measure(torch, dist, rank, ranks, size // 4, a.iterations, a.warm_up)
        bandwidth = size / seconds * 1e-9
        if rank == 0:
            print(f"  {size:>12} {size // 4:>12} {'float':>8} {'sum':>6} {seconds * 1e6:>12.2f} {bandwidth:>8.2f} "
                  f"{bandwidth * 2 * (ranks - 1) / ranks:>8.2f} {wrong:>7}", flush=True)  # fmt: skip
        size *= a.factor
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--minimum", type=int, default=1 << 10, help="bytes")
    parser.add_argument("--maximum", type=int, default=64 << 20)
    parser.add_argument("--factor", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=5)
    a = parser.parse_args()
    run_ranks(a.ranks, lambda rank, ranks: bench(a, rank, ranks))


if __name__ == "__main__":
    main()
