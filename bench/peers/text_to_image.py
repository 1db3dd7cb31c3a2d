# SPDX-License-Identifier: Apache-2.0
"""diffusers' side of the benches of text to image: StableDiffusionPipeline of Stable Diffusion 1.5's size.

    python bench/peers/text_to_image.py --make FOLDER [--small]                    random weights of fp32, 4.3 GB
    python bench/peers/text_to_image.py --from FOLDER --program denoise --inputs FILE --calls 3 [--compare FILE]
    python bench/peers/text_to_image.py --from FOLDER --draw 20 --size 512 --init-noise FILE [--compare FILE]

--program: one call of the UNet (denoise), the text encoder (encode_text) or the autoencoder (decode) with the tensors of a
safetensors file, as build/release/bench/program_bench takes it; --compare: how far its answer, or the pictures that `lockstep
sample --raw` has written, are from ours, in shares of the largest number. --draw: one picture of a prompt in so many guided
steps of DPM-Solver++; difference is then the root mean square of pixels from 0 to 1. Says "first step" when the UNet is
called for the first time. The last line is a JSON object: seconds of each call or of the drawing, open_seconds, difference.
"""

import argparse
import json
import pathlib
import sys
import time

STARTED = time.perf_counter()
ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPT, NEGATIVE = "a photo of an astronaut riding a horse", "blurry"

# The numbers of Stable Diffusion 1.5, and small ones, to see that all of it works.
TEXT = dict(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
UNET = dict(sample_size=64, cross_attention_dim=768)  # the class's own numbers otherwise
VAE = dict(sample_size=512, block_out_channels=(128, 256, 512, 512), layers_per_block=2)
SMALL_TEXT = dict(vocab_size=700, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
SMALL_UNET = dict(sample_size=8, cross_attention_dim=32, block_out_channels=(16, 32, 32, 32), attention_head_dim=2, norm_num_groups=8)
SMALL_VAE = dict(sample_size=64, block_out_channels=(16, 16, 16, 16), layers_per_block=1, norm_num_groups=8)


def make(folder, small):
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(1)
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    tokenizer = CLIPTokenizer.from_pretrained(ROOT / "configs/data/clip_small", model_max_length=77)
    text = CLIPTextConfig(**(SMALL_TEXT if small else TEXT), eos_token_id=1, bos_token_id=0, pad_token_id=1)
    StableDiffusionPipeline(
        vae=AutoencoderKL(**(SMALL_VAE if small else VAE), **levels), text_encoder=CLIPTextModel(text), tokenizer=tokenizer,
        unet=UNet2DConditionModel(**(SMALL_UNET if small else UNET)), safety_checker=None, feature_extractor=None,
        scheduler=PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
                                set_alpha_to_one=False, steps_offset=1),
        requires_safety_checker=False).save_pretrained(folder)  # fmt: skip


def say_first_step(unet):
    def say(*_):
        print("first step", flush=True)
        handle.remove()

    handle = unet.register_forward_pre_hook(say)


def answer_of(a):
    """Of one network alone, as its pipeline asks it."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    if a.program == "encode_text":
        net = CLIPTextModel.from_pretrained(a.folder / "text_encoder")
        return lambda tokens: net(tokens.long()).last_hidden_state
    if a.program == "denoise":
        net = in_layout(UNet2DConditionModel.from_pretrained(a.folder / "unet"), a)
        return lambda images, timesteps, text: net(in_layout(images, a), timesteps, text).sample
    net = in_layout(AutoencoderKL.from_pretrained(a.folder / "vae"), a)
    return lambda images: net.decode(in_layout(images / net.config.scaling_factor, a)).sample


def in_layout(x, a):
    import torch

    return x.to(memory_format=torch.channels_last) if a.channels_last else x


def ask(a):
    from safetensors.torch import load_file

    inputs = load_file(a.inputs)
    answer = answer_of(a)
    said = {"open_seconds": time.perf_counter() - STARTED, "seconds": []}
    for _ in range(a.calls):
        started = time.perf_counter()
        y = answer(**inputs)
        said["seconds"].append(time.perf_counter() - started)
    return said, y


def draw(a):
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
    from safetensors.torch import load_file

    pipe = StableDiffusionPipeline.from_pretrained(a.folder)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    pipe.unet, pipe.vae = in_layout(pipe.unet, a), in_layout(pipe.vae, a)
    say_first_step(pipe.unet)
    said = {"open_seconds": time.perf_counter() - STARTED}
    latents = {"latents": load_file(a.init_noise)["noise"]} if a.init_noise else {}
    started = time.perf_counter()
    picture = pipe(PROMPT, negative_prompt=NEGATIVE, height=a.size, width=a.size, num_inference_steps=a.draw, guidance_scale=7.5,
                   output_type="pt", **latents).images  # fmt: skip
    return said | {"seconds": time.perf_counter() - started}, picture


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", metavar="FOLDER")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--from", dest="folder", metavar="FOLDER", type=pathlib.Path)
    parser.add_argument("--program", choices=["encode_text", "denoise", "decode"])
    parser.add_argument("--inputs", metavar="FILE")
    parser.add_argument("--calls", type=int, default=1)
    parser.add_argument("--draw", type=int, metavar="STEPS")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--init-noise", metavar="FILE")
    parser.add_argument("--compare", metavar="FILE")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    if a.make:
        make(a.make, a.small)
        return

    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(a.threads)
    torch.set_grad_enabled(False)
    said, answer = ask(a) if a.program else draw(a)
    if a.compare:
        (ours,) = load_file(a.compare).values()
        if a.draw:
            said["difference"] = ((ours / 2 + 0.5).clamp(0, 1) - answer).square().mean().sqrt().item()
        else:
            said["difference"] = ((ours - answer).abs().max() / answer.abs().max()).item()
    print(json.dumps({"torch": torch.__version__} | said))


if __name__ == "__main__":
    sys.exit(main())
