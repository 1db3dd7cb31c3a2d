# SPDX-License-Identifier: Apache-2.0
"""Makes attention.safetensors: self_attention2d forward and backward in PyTorch, for tests/models/attention_test.cpp.

    ~/.cache/lockstep/peers/bin/python tests/golden/make_attention.py      (environment: bench/peers/install)

Computed in float64. Of each case: `x`, `dy` and the parameters as drawn, `y`, and each one's gradient as `grad.<name>`.
"""

import pathlib

import safetensors.torch
import torch
from torch_nets import SelfAttention2d

CASES = {
    # Few channels lie in vector lanes, many plain.
    "few": ((2, 16, 5, 5), dict(heads=4, groups=4, eps=1e-5)),
    "many": ((2, 40, 4, 3), dict(heads=1, groups=8, eps=1e-6)),
}


def main():
    torch.manual_seed(3)
    tensors = {}
    for name, (shape, options) in CASES.items():
        net = SelfAttention2d(shape[1], **options)
        with torch.no_grad():
            for p in net.group_norm.parameters():
                p.add_(0.3 * torch.randn_like(p))
            for p in (net.to_q.weight, net.to_k.weight):
                p.mul_(3)  # or the attention is all but even
        x, dy = torch.randn(shape), torch.randn(shape)
        inputs = {"x": x, "dy": dy, **{k: p.detach().clone() for k, p in net.named_parameters()}}
        net = net.double()
        x = x.double().requires_grad_()
        y = net(x)
        y.backward(dy.double())
        outputs = {"y": y, "grad.x": x.grad, **{f"grad.{k}": p.grad for k, p in net.named_parameters()}}
        for k, t in {**inputs, **outputs}.items():
            tensors[f"{name}.{k}"] = t.detach().float().contiguous()
    safetensors.torch.save_file(tensors, pathlib.Path(__file__).parent / "attention.safetensors")


if __name__ == "__main__":
    main()
