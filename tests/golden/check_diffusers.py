#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the program against diffusers, both ways, on this machine (torch, diffusers 0.42, safetensors).

  python tests/golden/check_diffusers.py [--lockstep build/release/lockstep] [--cifar IMAGE_FOLDER]

- A run's folder in diffusers: DDIM with eta 0 from saved noise and class labels, against `lockstep sample`.
- The same with a folder that diffusers wrote; an unconditional one through DDPMPipeline.from_pretrained.
- Twenty AdamW steps on the same images, noise and timesteps: loss of each step, weights at the end.
- With --cifar: the DDPM paper's CIFAR-10 net (35,746,307 parameters): prediction, and twenty steps at batch 4.
Prints a line a check and exits with 1 if one failed.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusion_peer import CIFAR10_CONFIG, draw_noise, draw_timestep
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ROOT / "tests/golden/diffusion/tiny.yaml"
failed = []


def check(what, value, allowed):
    ok = value <= allowed
    print(f"{'ok    ' if ok else 'FAILED'} {what}: {value:.3g} (at most {allowed:g})", flush=True)
    if not ok:
        failed.append(what)


class Program:
    def __init__(self, path, folder):
        self.path, self.folder = path, folder

    def __call__(self, *words):
        done = subprocess.run([self.path, *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            sys.exit(f"lockstep {' '.join(map(str, words))}: exit {done.returncode}\n{done.stdout}{done.stderr}")

    def fit(self, job, run, **settings):
        sets = [w for k, v in settings.items() for w in ("--set", f"{k.replace('__', '.')}={v}")]
        self("fit", job, "--output", run, *sets)


def ddim(folder, noise, labels, steps, guidance, null):
    net = UNet2DModel.from_pretrained(folder, subfolder="unet").eval()
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(steps)
    x = noise * scheduler.init_noise_sigma
    classes = {} if labels is None else {"class_labels": labels}
    with torch.no_grad():
        for t in scheduler.timesteps:
            said = net(x, t, **classes).sample
            if guidance != 1:
                none = net(x, t, class_labels=torch.full_like(labels, null)).sample
                said = none + guidance * (said - none)
            x = scheduler.step(said, t, x, eta=0).prev_sample
    return x


def sampled_alike(program, folder, name, labels, null, guidance=1.0, steps=10):
    raw, noise = program.folder / f"{name}-raw.safetensors", program.folder / f"{name}-noise.safetensors"
    words = ["sample", folder, "--count", 6, "--sampler", "ddim", "--compat", "diffusers", "--steps", steps, "--seed", 7,
             "--raw", raw, "--save-noise", noise, "--out", program.folder / f"{name}.png", "--guidance", guidance]
    program(*words)
    ours = load_file(raw)["images"]
    theirs = ddim(folder, load_file(noise)["noise"], labels, steps, guidance, null)
    check(f"{name}: samples, in 1/255", float((ours - theirs).abs().max()) * 127.5, 2)


def trained_alike(program, name, job, folder, batch, settings, images, size, tolerance=1e-3):
    """Twenty steps from the same weights; images as float [-1, 1] in the order of the data set."""
    run = program.folder / f"{name}-run"
    config = json.loads((folder / "unet/config.json").read_text())
    program.fit(job, run, model__init_from=folder, hyperparameters__steps=20, hyperparameters__shuffle="false",
                hyperparameters__global_batch_size=batch, log_every=1, hyperparameters__optimizer="{name: adamw, lr: 0.0002}",
                hyperparameters__lr_schedule="constant", **settings)
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()
              if '"training"' in line]
    schedule = DDPMScheduler.from_pretrained(run, subfolder="scheduler")
    net = UNet2DModel.from_pretrained(folder, subfolder="unet").train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-4, weight_decay=0.01)
    worst, elements = 0.0, int(np.prod(size))
    seed = 3
    for step in range(20):
        x0 = images[step * batch:(step + 1) * batch]
        t = torch.tensor([draw_timestep(seed, step, n, 1000) for n in range(batch)])
        eps = torch.stack([torch.from_numpy(draw_noise(seed, step, n, elements)).reshape(size) for n in range(batch)])
        x_t = schedule.add_noise(x0, eps, t)
        target = eps if schedule.config.prediction_type == "epsilon" else schedule.get_velocity(x0, eps, t)
        loss = torch.nn.functional.mse_loss(net(x_t, t).sample, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        worst = max(worst, abs(losses[step] - loss.item()) / loss.item())
    check(f"{name}: loss of each of 20 steps, relative", worst, tolerance)
    ours = load_file(run / "unet/diffusion_pytorch_model.safetensors")
    zero = [k for k in ours if k.endswith("to_k.bias")]  # no gradient in exact arithmetic: Adam divides rounding by rounding
    print("       left out, true gradient zero:", ", ".join(zero) or "none")
    worst = max(float((ours[k] - p.detach()).norm() / p.detach().norm()) for k, p in net.named_parameters() if k not in zero)
    check(f"{name}: weights after 20 steps, relative L2 of the worst tensor", worst, 1e-3)
    return config


def diffusers_folder(path, **config):
    torch.manual_seed(1)
    net = UNet2DModel(**config)
    DDPMPipeline(unet=net, scheduler=DDPMScheduler(num_train_timesteps=1000)).save_pretrained(path)
    return net


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lockstep", default=ROOT / "build/release/lockstep")
    parser.add_argument("--cifar", help="folder with a folder of pictures a class")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        program = Program(options.lockstep, pathlib.Path(scratch))
        run = program.folder / "run"
        program.fit(TINY, run)
        sampled_alike(program, run, "our folder, classes, guidance", torch.arange(6), 10, guidance=2.0)

        theirs = program.folder / "theirs"
        small = dict(sample_size=28, in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1,
                     down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
                     norm_num_groups=4, attention_head_dim=8)
        diffusers_folder(theirs, **small)
        sampled_alike(program, theirs, "diffusers' folder", None, 0)

        import gzip
        raw = gzip.decompress((ROOT / "configs/data/mnist/train-images-idx3-ubyte.gz").read_bytes())[16:]
        digits = torch.from_numpy(np.frombuffer(raw, np.uint8)[:320 * 784].reshape(320, 1, 28, 28) / np.float32(255)) * 2 - 1
        job = program.folder / "plain.yaml"
        job.write_text(f"""model: {{name: unet2d, init_from: {theirs}}}
objective: {{name: diffusion, beta_schedule: squaredcos_cap_v2}}
inputs: {{training: {{dataset: mnist, path: {ROOT}/configs/data/mnist, limit: 320}}, test: {{limit: 8}}}}
hyperparameters: {{steps: 20, global_batch_size: 16, optimizer: {{name: adamw, lr: 0.0002}}, seed: 3}}
sampling: {{count: 1, steps: 1}}
""")
        trained_alike(program, "small net", job, theirs, 16, {}, digits, (1, 28, 28))
        pipeline = DDPMPipeline.from_pretrained(program.folder / "small net-run")
        image = pipeline(batch_size=1, num_inference_steps=2, output_type="np").images
        check("our unconditional folder in DDPMPipeline: values that are no numbers", float(np.isnan(image).sum()), 0)

        if options.cifar:
            cifar = program.folder / "cifar"
            net = diffusers_folder(cifar, **CIFAR10_CONFIG)
            check("CIFAR net: tensors other than 328", abs(len(list(net.parameters())) - 328), 0)
            check("CIFAR net: parameters other than 35746307", abs(sum(p.numel() for p in net.parameters()) - 35746307), 0)
            sampled_alike(program, cifar, "CIFAR net, one step", None, 0, steps=1)
            from PIL import Image
            files = sorted(pathlib.Path(options.cifar).rglob("*.*"))[:80]
            pictures = torch.stack([torch.from_numpy(np.asarray(Image.open(f).convert("RGB"))).permute(2, 0, 1) for f in files])
            job.write_text(f"""model: {{name: unet2d, init_from: {cifar}}}
objective: diffusion
inputs: {{training: {{dataset: image_folder, path: {options.cifar}, limit: 80}}}}
hyperparameters: {{steps: 20, global_batch_size: 4, optimizer: {{name: adamw, lr: 0.0002}}, seed: 3}}
sampling: {{count: 1, steps: 1}}
""")
            trained_alike(program, "CIFAR net", job, cifar, 4, {"instance_count": 2}, pictures.float() / 127.5 - 1, (3, 32, 32))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
