# SPDX-License-Identifier: Apache-2.0
"""Starts the ranks of torch.distributed on this host, as torchrun does and with nothing else."""

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
