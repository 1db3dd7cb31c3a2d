# SPDX-License-Identifier: Apache-2.0
"""diffusers' side of `gpu_programs program_timings`: the UNet and the decoder of Stable Diffusion 1.5's size, with random weights.

    python bench/peers/program_calls.py denoise --precision bf16 --calls 10
    python bench/peers/program_calls.py decode --compile

denoise: a batch of 2, latents of 64×64, 77 tokens of text; decode: a picture of 512×512. Weights of bf16 are bf16, as pipelines
are loaded. A call is timed from the host's memory to the host's memory, behind three that warm up. The last line is a JSON
object: seconds of each call, torch.
"""

import argparse
import json
import time

import torch
from ranks import exact_fp32

WARM_UP = 3


def unet():
    from diffusers import UNet2DConditionModel

    net = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)  # the class's own numbers otherwise
    inputs = torch.randn(2, 4, 64, 64), torch.full((2,), 500.0), torch.randn(2, 77, 768)
    return net, lambda x, t, text: net(x, t, text).sample, inputs


def decoder():
    from diffusers import AutoencoderKL

    net = AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                        block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512)  # fmt: skip
    return net, lambda x: net.decode(x).sample, (torch.randn(1, 4, 64, 64),)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", choices=["denoise", "decode"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    a = parser.parse_args()
    torch.manual_seed(1)
    torch.set_grad_enabled(False)
    exact_fp32(torch)
    dtype = torch.bfloat16 if a.precision == "bf16" else torch.float32
    with torch.device(a.device):
        net, call, inputs = {"denoise": unet, "decode": decoder}[a.program]()
    net.to(dtype=dtype, memory_format=torch.channels_last)
    if a.compile:
        call = torch.compile(call, mode="max-autotune")
    host = [x.to(device="cpu", dtype=dtype) for x in inputs]
    seconds = []
    for _ in range(WARM_UP + a.calls):
        began = time.perf_counter()
        call(*(x.to(a.device) for x in host)).cpu()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"torch": torch.__version__, "seconds": seconds[WARM_UP:]}))


if __name__ == "__main__":
    main()
