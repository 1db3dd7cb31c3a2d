# SPDX-License-Identifier: Apache-2.0
"""What a GPU does at most, as PyTorch reaches it: large products of random matrices, and a large copy.

    python bench/peers/card_limits.py

The last line is a JSON object: bf16 and fp32 (no TF32) in TFLOP/s, memory in TB/s (bytes read and written), upload in GB/s
from pinned memory.
"""

import json
import statistics

import torch


def seconds(work, repeats):
    """The median, by the device's events; the first two warm up."""
    found = []
    for _ in range(repeats + 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(found[2:])


def product(dtype, n):
    a, b = (torch.randn(n, n, device="cuda").to(dtype) for _ in range(2))
    out = torch.empty(n, n, device="cuda", dtype=dtype)
    return 2 * n**3 / seconds(lambda: torch.mm(a, b, out=out), 10) / 1e12


def main():
    torch.backends.cuda.matmul.allow_tf32 = False
    big, other = (torch.empty(1 << 30, dtype=torch.float32, device="cuda").normal_() for _ in range(2))
    copy = 2 * big.nbytes / seconds(lambda: other.copy_(big), 10) / 1e12
    pinned = torch.empty(64 << 20, dtype=torch.float32, pin_memory=True)
    part = other[: pinned.numel()]
    upload = pinned.nbytes / seconds(lambda: part.copy_(pinned, non_blocking=True), 5) / 1e9
    print(json.dumps({"bf16": product(torch.bfloat16, 8192), "fp32": product(torch.float32, 8192), "memory": copy, "upload": upload}))


if __name__ == "__main__":
    main()
