#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/unet.json and unet.safetensors: diffusers' UNet2DModel in configurations of many kinds.

  python tests/golden/make_unet.py        needs torch, diffusers 0.42, safetensors, numpy

Each configuration: the prediction for a batch of two, in float32, and for some the gradients of sum(prediction * g) for
every parameter. Weights and inputs are formulas (unet_weights.py).
"""

import json
import pathlib

import numpy as np
import torch
from diffusers import UNet2DModel
from safetensors.torch import save_file

from unet_weights import uniform, weight

HERE = pathlib.Path(__file__).parent
torch.set_num_threads(1)
torch.backends.mkldnn.enabled = False

D, AD, U, AU = "DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"
BASE = dict(in_channels=3, out_channels=3, layers_per_block=1, norm_num_groups=4, attention_head_dim=None)

# (name, size, gradients, what differs from BASE). As the DDPM paper's nets come first, then one or two things at a time.
CASES = [
    ("ddpm", (16, 16), True, dict(block_out_channels=(8, 12), down_block_types=(D, AD), up_block_types=(AU, U),
        downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6)),
    ("defaults_of_the_class", (8, 8), True, dict(block_out_channels=(8, 16), down_block_types=(D, AD),
        up_block_types=(AU, U), attention_head_dim=8)),
    ("one_level", (6, 10), True, dict(block_out_channels=(8,), down_block_types=(D,), up_block_types=(U,))),
    ("classes", (8, 8), True, dict(block_out_channels=(8, 8), down_block_types=(D, D), up_block_types=(U, U),
        num_class_embeds=5, in_channels=1, out_channels=1)),
    ("classes_as_timesteps", (8, 8), False, dict(block_out_channels=(8, 8), down_block_types=(D, AD),
        up_block_types=(U, U), class_embed_type="timestep")),
    ("scale_shift", (8, 8), True, dict(block_out_channels=(8, 12), down_block_types=(D, AD), up_block_types=(AU, U),
        resnet_time_scale_shift="scale_shift")),
    ("scale_shift_with_norm", (8, 4), False, dict(block_out_channels=(8, 12), down_block_types=(D, D),
        up_block_types=(AU, U), resnet_time_scale_shift="scale_shift", attn_norm_num_groups=2, attention_head_dim=6)),
    ("resnet_resampling", (8, 8), True, dict(block_out_channels=(8, 8), down_block_types=(AD, AD),
        up_block_types=(AU, AU), downsample_type="resnet", upsample_type="resnet", attention_head_dim=4)),
    ("no_mid_block", (8, 12), False, dict(block_out_channels=(8, 12, 16), down_block_types=(D, D, AD),
        up_block_types=(U, AU, U), mid_block_type=None)),
    ("mid_without_attention", (8, 8), False, dict(block_out_channels=(8, 16), down_block_types=(D, D),
        up_block_types=(U, U), add_attention=False, mid_block_scale_factor=1.4142135)),
    ("mid_scale", (8, 8), False, dict(block_out_channels=(8, 16), down_block_types=(D, D), up_block_types=(U, U),
        mid_block_scale_factor=2.0, attention_head_dim=2)),
    ("relu_and_deep", (16, 8), False, dict(block_out_channels=(8, 8, 16), layers_per_block=2,
        down_block_types=(D, AD, D), up_block_types=(U, AU, U), act_fn="relu")),
    ("gelu_centred", (8, 8), False, dict(block_out_channels=(8, 12), down_block_types=(D, AD), up_block_types=(AU, U),
        act_fn="gelu", center_input_sample=True)),
    ("wide_embedding", (8, 8), False, dict(block_out_channels=(12, 8), down_block_types=(AD, D), up_block_types=(U, AU),
        time_embedding_dim=20, freq_shift=0.5, norm_num_groups=2)),
    ("four_levels", (16, 24), False, dict(block_out_channels=(4, 8, 8, 12), down_block_types=(D, D, AD, D),
        up_block_types=(U, AU, U, U), downsample_padding=0, attn_norm_num_groups=3)),
    ("three_layers_swish", (8, 8), False, dict(block_out_channels=(8, 16), layers_per_block=3, down_block_types=(AD, D),
        up_block_types=(U, AU), act_fn="swish", norm_eps=1e-3, flip_sin_to_cos=False, dropout=0.3)),
]


def main():
    described, tensors = [], {}
    for index, (name, size, gradients, changes) in enumerate(CASES):
        config = {**BASE, "sample_size": list(size), **changes}
        net = UNet2DModel(**{**config, "sample_size": size}).eval()
        with torch.no_grad():
            for tensor_name, p in net.named_parameters():
                p.copy_(torch.from_numpy(weight(tensor_name, tuple(p.shape))))
        channels = config["in_channels"]
        x = torch.from_numpy(4 * uniform(2 * channels * size[0] * size[1], 1000 + index)).reshape(2, channels, *size)
        timesteps = torch.tensor([(37 * index + 5) % 1000, (411 * index + 999) % 1000])
        labels = torch.tensor([index % 5, (index + 3) % 5])
        conditional = "num_class_embeds" in changes or "class_embed_type" in changes
        y = net(x, timesteps, **({"class_labels": labels} if conditional else {})).sample
        tensors[f"{name}.prediction"] = y.detach().contiguous()
        if gradients:
            g = torch.from_numpy(uniform(y.numel(), 2000 + index)).reshape(y.shape)
            (y * g).sum().backward()
            for tensor_name, p in net.named_parameters():
                tensors[f"{name}.grad.{tensor_name}"] = p.grad.contiguous()
        described.append({"name": name, "config": config, "timesteps": timesteps.tolist(), "labels": labels.tolist(),
                          "conditional": conditional, "gradients": gradients, "tensors": len(list(net.parameters())),
                          "parameters": sum(p.numel() for p in net.parameters())})
    (HERE / "unet.json").write_text(json.dumps(described, indent=1) + "\n")
    save_file(tensors, HERE / "unet.safetensors")
    print(sum(t.numel() for t in tensors.values()) * 4, "bytes", [(d["name"], d["parameters"]) for d in described])


if __name__ == "__main__":
    main()
