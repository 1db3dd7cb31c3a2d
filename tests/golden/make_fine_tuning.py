#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/fine_tuning.json: steps of diffusers' examples/text_to_image/train_text_to_image.py, whose UNet learns
from latents of a frozen VAE and hidden states of a frozen text encoder.

  python tests/golden/make_fine_tuning.py        needs torch, diffusers 0.42, transformers 5, numpy

The folder is make_pipeline.py's sd1, with weights by formula; pictures are a formula too. Samples of the posterior, noise and
timesteps are drawn as our program draws them (diffusion_peer.py). Kept are the losses, how far the UNet has moved in all, and
of what SGD has moved in each tensor the norm and the product with a vector that is a formula.
"""

import json
import pathlib

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusion_peer import draw_noise, draw_posterior, draw_timestep
from make_pipeline import CASES, pipeline_of
from make_text_to_image import PROJECTION, formula

HERE = pathlib.Path(__file__).parent
SIDE, STEPS, SEED = 16, 3, 5
CAPTIONS = ["a red seven", "a small blue two at the top left", "nine", "A LARGE green zero, on white"]
OPTIMIZERS = {"sgd": dict(lr=0.05, momentum=0.9), "adamw": dict(lr=1e-3, weight_decay=0.01)}


def picture(i):
    """[3, SIDE, SIDE], numbers of 8 bits."""
    c, y, x = np.meshgrid(np.arange(3), np.arange(SIDE), np.arange(SIDE), indexing="ij")
    return (i * 61 + c * 83 + y * 11 + x * (7 + i)) % 256


def steps_of(name):
    pipe = pipeline_of(CASES["sd1"])
    for frozen in (pipe.vae, pipe.text_encoder):
        frozen.requires_grad_(False)
    unet = pipe.unet.train()
    before = {k: p.detach().clone() for k, p in unet.named_parameters()}
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[name]
    optimizer = kind(unet.parameters(), **OPTIMIZERS[name])
    noise = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    images = torch.from_numpy(np.stack([picture(i) for i in range(len(CAPTIONS))])).float() / 127.5 - 1
    ids = pipe.tokenizer(CAPTIONS, padding="max_length", truncation=True, return_tensors="pt").input_ids
    losses = []
    for step in range(STEPS):
        posterior = pipe.vae.encode(images).latent_dist
        drawn = [draw_posterior(SEED, step, n, posterior.mean[0].numel()) for n in range(len(images))]
        drawn = torch.from_numpy(np.stack(drawn)).reshape(posterior.mean.shape)
        latents = (posterior.mean + posterior.std * drawn) * pipe.vae.config.scaling_factor  # latent_dist.sample()
        eps = [draw_noise(SEED, step, n, latents[0].numel()) for n in range(len(images))]
        eps = torch.from_numpy(np.stack(eps)).reshape(latents.shape)
        t = torch.tensor([draw_timestep(SEED, step, n, 1000) for n in range(len(images))])
        said = unet(noise.add_noise(latents, eps, t), t, pipe.text_encoder(ids)[0]).sample
        loss = torch.nn.functional.mse_loss(said, eps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    moved = {}
    for key, p in unet.named_parameters():
        d = (p.detach() - before[key]).flatten().double()
        moved[key] = [d.norm().item(), (d * formula(d.shape, PROJECTION).double()).sum().item()]
    return {"losses": losses, "distance": sum(n * n for n, _ in moved.values()) ** 0.5, "moved": moved}


def main():
    golden = {"captions": CAPTIONS, "side": SIDE, "steps": STEPS, "seed": SEED}
    golden |= {name: steps_of(name) for name in OPTIMIZERS}
    del golden["adamw"]["moved"]  # where a gradient is all but none Adam divides rounding by rounding
    rounded = json.loads(json.dumps(golden), parse_float=lambda x: float(f"{float(x):.9g}"))
    text = json.dumps(rounded).replace("], \"", "],\n\"").replace("}, ", "},\n")
    (HERE / "fine_tuning.json").write_text(text + "\n")
    for name in OPTIMIZERS:
        print(name, golden[name]["losses"], golden[name]["distance"])


if __name__ == "__main__":
    main()
