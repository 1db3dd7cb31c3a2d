#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks text to image against diffusers and transformers on this machine (torch, diffusers 0.42, transformers 5).

  python tests/golden/check_text_to_image.py [--lockstep build/release/lockstep]

- Twenty AdamW steps of a small text encoder and UNet on captioned digits, from the same weights, noise and timesteps: the loss
  of each step, and how far each tensor has moved.
- The run's folder in StableDiffusionPipeline, which draws what `lockstep sample` draws from the same noise.
Prints a line a check and exits with 1 if one failed.
"""

import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np
import torch
from check_diffusers import Program, check, failed
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusion_peer import draw_noise, draw_timestep
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS, BATCH, SEED, LR = 20, 8, 3, 1e-3
PROMPTS = ["a small red seven at the top left on a blue background", "TWO, in green"]

NETS = f"""  name: text_to_image
  tokenizer: {ROOT}/configs/data/clip_small
  text_encoder: {{vocab_size: 681, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 4,
                 max_position_embeddings: 24}}
  unet: {{in_channels: 3, out_channels: 3, block_out_channels: [8, 16], layers_per_block: 1, norm_num_groups: 4,
         down_block_types: [DownBlock2D, CrossAttnDownBlock2D], up_block_types: [CrossAttnUpBlock2D, UpBlock2D],
         attention_head_dim: 2, cross_attention_dim: 32}}
"""


def job(path, model, data, steps):
    path.write_text(f"""model:
{model}objective: {{name: diffusion, prediction_type: v_prediction, beta_schedule: linear, snr_gamma: 5}}
inputs: {{training: {{dataset: image_folder, path: {data}, captions: {{column: text}}}}}}
hyperparameters: {{steps: {steps}, global_batch_size: {BATCH}, shuffle: false, optimizer: {{name: adamw, lr: {LR}}}, seed: {SEED}}}
sampling: {{count: 1, steps: 1}}
log_every: 1
""")
    return path


def trained_alike(program, data, start):
    run = program.folder / "trained"
    program("fit", job(program.folder / "train.yaml", f"  {{name: text_to_image, init_from: {start}}}\n", data, STEPS), "--output", run)
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines() if '"training"' in line]
    entries = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    pictures = torch.stack([torch.from_numpy(np.asarray(Image.open(data / e["file_name"]).convert("RGB"))).permute(2, 0, 1)
                            for e in entries]).float() / 127.5 - 1
    tokenizer = CLIPTokenizer.from_pretrained(start / "tokenizer")
    ids = tokenizer([e["text"] for e in entries], padding="max_length", truncation=True, return_tensors="pt").input_ids
    schedule = DDPMScheduler.from_pretrained(start, subfolder="scheduler")
    nets = {"unet": UNet2DConditionModel.from_pretrained(start, subfolder="unet").train(),
            "text_encoder": CLIPTextModel.from_pretrained(start / "text_encoder").train()}
    before = {n: {k: p.detach().clone() for k, p in net.named_parameters()} for n, net in nets.items()}
    optimizer = torch.optim.AdamW([p for net in nets.values() for p in net.parameters()], lr=LR, weight_decay=0.01)
    worst = 0.0
    for step in range(STEPS):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        x0 = pictures[rows]
        t = torch.tensor([draw_timestep(SEED, step, n, 1000) for n in range(BATCH)])
        eps = torch.stack([torch.from_numpy(draw_noise(SEED, step, n, x0[0].numel())).reshape(x0[0].shape) for n in range(BATCH)])
        text = nets["text_encoder"](ids[rows]).last_hidden_state
        said = nets["unet"](schedule.add_noise(x0, eps, t), t, text).sample
        a = schedule.alphas_cumprod[t].double()
        snr = a / (1 - a)
        weight = (snr.clamp(max=5) / (snr + 1)).float()
        errors = (said - schedule.get_velocity(x0, eps, t)).square().mean(dim=(1, 2, 3))
        loss = (weight * errors).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        worst = max(worst, abs(losses[step] - loss.item()) / loss.item())
    check("loss of each of 20 steps, relative", worst, 1e-5)
    worst, which = 0.0, ""
    for name, file in (("unet", "unet/diffusion_pytorch_model.safetensors"), ("text_encoder", "text_encoder/model.safetensors")):
        ours = load_file(run / file)
        for key, p in nets[name].named_parameters():
            if key.endswith("k_proj.bias"):  # no gradient in exact arithmetic: Adam divides rounding by rounding
                continue
            stored = ours[key] if key in ours else ours["text_model." + key]
            moved = p.detach() - before[name][key]
            off = float((stored - p.detach()).norm() / moved.norm())
            if off > worst:
                worst, which = off, f"{name}.{key}"
    check(f"what tensors moved in 20 steps, relative L2 of the worst ({which})", worst, 0.02)
    return run


def drawn_alike(program, run):
    noise, raw = program.folder / "noise.safetensors", program.folder / "raw.safetensors"
    prompts = [word for p in PROMPTS for word in ("--prompt", p)]
    program("sample", run, *prompts, "--negative-prompt", "three", "--steps", 5, "--sampler", "dpm_solver", "--guidance", 3,
            "--save-noise", noise, "--raw", raw, "--out", program.folder / "grid.png")
    pipe = StableDiffusionPipeline.from_pretrained(run, vae=None)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(PROMPTS, negative_prompt=["three"] * 2, height=256, width=256, latents=load_file(noise)["noise"],
                  num_inference_steps=5, guidance_scale=3, output_type="latent").images
    ours = load_file(raw)["images"]
    check("a run in StableDiffusionPipeline: pictures, relative to the largest number",
          float((ours - theirs).abs().max() / theirs.abs().max()), 1e-4)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lockstep", default=ROOT / "build/release/lockstep")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        program = Program(options.lockstep, pathlib.Path(scratch))
        data, start = program.folder / "digits", program.folder / "start"
        program("data", "make", "captioned_digits", data, "--count", STEPS * BATCH, "--from", ROOT / "configs/data/mnist")
        program("fit", job(program.folder / "start.yaml", NETS, data, 1), "--output", start)
        drawn_alike(program, trained_alike(program, data, start))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
