# SPDX-License-Identifier: Apache-2.0
"""What the peers' trainers share: ranks of torch.distributed on this host, started as torchrun does and with nothing else;
how long to train for a window of seconds; fp32 that is fp32 on a GPU too."""

import math
import os
import socket
import subprocess
import sys


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_ranks(ranks, work):
    """work(rank, ranks) in as many processes, each this script started again; one alone runs here."""
    if "RANK" in os.environ:
        work(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        return
    if ranks == 1:
        work(0, 1)
        return
    common = {**os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [subprocess.Popen([sys.executable, *sys.argv], env={**common, "RANK": str(rank)}) for rank in range(ranks)]
    sys.exit(max(abs(process.wait()) for process in started))


def steps_after(step, warmup, elapsed, seconds):
    """How many steps to go on to, when `step` are done and those after the warm-up took `elapsed` of the `seconds` wanted."""
    if elapsed >= seconds:
        return step
    share = seconds / elapsed - 1 if elapsed > 0 else 1
    return step + max(1, math.ceil((step - warmup) * min(max(share, 0.1), 20)))


def exact_fp32(torch):
    """cuDNN and cuBLAS may take TF32 for fp32, with 10 bits of mantissa; Lockstep does not."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
