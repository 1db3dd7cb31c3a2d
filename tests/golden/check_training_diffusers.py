#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a job's UNet in diffusers on the images, noise and timesteps of our run, and compares the losses
(torch, diffusers 0.42, safetensors, PyYAML, Pillow).

  python tests/golden/check_training_diffusers.py --make WEIGHTS configs/ddpm_cifar10.yaml     random weights to start from
  lockstep fit configs/ddpm_cifar10.yaml --set model.init_from=WEIGHTS --set log_every=1 --set hyperparameters.steps=200 \\
    --set hyperparameters.global_batch_size=16 --set hyperparameters.lr_schedule.warmup_steps=20 --output RUN
  python tests/golden/check_training_diffusers.py RUN

The order of the samples, flips, hidden labels, noise and timesteps are functions of the seed, drawn again here
(diffusion_peer.py); the learning rate of each step is the one that our run notes; dropout masks are PyTorch's own. Prints the
mean losses of the last steps and exits with 1 where they differ by more than --tolerance.
"""

import argparse
import gzip
import json
import pathlib
import re
import sys

import numpy as np
import torch
import yaml
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusion_peer import batch_order, draw_hidden, draw_mirrored, draw_noise, draw_timestep
from PIL import Image
from safetensors.torch import load_file


class Yaml(yaml.SafeLoader):
    """YAML 1.2's numbers: 1e-05 is one."""


Yaml.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def read_yaml(path):
    return yaml.load(pathlib.Path(path).read_text(), Yaml)


def make(folder, job):
    torch.manual_seed(1)
    net = UNet2DModel(**read_yaml(job)["model"]["config"])
    DDPMPipeline(unet=net, scheduler=DDPMScheduler()).save_pretrained(folder)


def images_of(data, channels):
    """Training images u8 [count, C, H, W] and labels, in the order of our data set."""
    path = pathlib.Path(data["path"])
    if data["dataset"] == "mnist":
        pixels, labels = (np.frombuffer(gzip.decompress((path / f"train-{name}-ubyte.gz").read_bytes()), np.uint8)[skip:]
                          for name, skip in (("images-idx3", 16), ("labels-idx1", 8)))
        pixels = pixels.reshape(-1, 1, 28, 28)
    elif data["dataset"] == "cifar10":
        path = path / "cifar-10-batches-bin" if (path / "cifar-10-batches-bin").exists() else path
        records = np.concatenate([np.fromfile(path / f"data_batch_{i}.bin", np.uint8) for i in range(1, 6)]).reshape(-1, 3073)
        pixels, labels = records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]
    elif data["dataset"] == "image_folder":
        path = path / "train" if (path / "train").exists() else path
        classes = sorted(c for c in path.iterdir() if c.is_dir())
        files = [(f, label) for label, c in enumerate(classes) for f in sorted(c.rglob("*.*"), key=str)]
        mode = "L" if channels == 1 else "RGB"
        pixels = np.stack([np.asarray(Image.open(f).convert(mode)) for f, _ in files])
        pixels = pixels.reshape(*pixels.shape[:3], channels).transpose(0, 3, 1, 2)
        labels = np.array([label for _, label in files])
    else:
        sys.exit(f"data set {data['dataset']}: not read here")
    limit = data["limit"] or len(pixels)
    return pixels[:limit], labels[:limit]


def refuse(job):
    """What would make the comparison another one than it says."""
    h, data = job["hyperparameters"], job["inputs"]["training"]
    for what, there in (("validation_fraction", job.get("validation_fraction")), ("param_groups", h.get("param_groups")),
                        ("augment.crop_padding", data["augment"]["crop_padding"]), ("augment.random_crop", data["augment"].get("random_crop")), ("resize or crop", data.get("resize") or data.get("crop")),
                        ("prediction_type sample", job["objective"]["prediction_type"] == "sample"),
                        ("an optimizer of its own", h["optimizer"]["name"] not in ("adam", "adamw"))):
        if there:
            sys.exit(f"the job has {what}, which is not repeated here")


def train(run, job, rates):
    """Losses of the steps, each with its learning rate."""
    h, objective, data = job["hyperparameters"], job["objective"], job["inputs"]["training"]
    seed, velocity = h["seed"], objective["prediction_type"] == "v_prediction"
    net = UNet2DModel.from_config(UNet2DModel.load_config(run, subfolder="unet")).train()
    net.load_state_dict(load_file(pathlib.Path(job["model"]["init_from"]) / "unet/diffusion_pytorch_model.safetensors"))
    schedule = DDPMScheduler.from_pretrained(run, subfolder="scheduler")
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[h["optimizer"]["name"]]
    optimizer = kind(net.parameters(), **{k: h["optimizer"][k] for k in ("weight_decay", "betas", "eps")})
    pixels, labels = images_of(data, net.config.in_channels)
    classes = int(labels.max()) + 1
    torch.manual_seed(seed)
    for step, rate in enumerate(rates):
        chosen = batch_order(len(pixels), seed, h["global_batch_size"], step, h["shuffle"], h["drop_last"])
        x0 = torch.from_numpy(pixels[chosen]).float() / 127.5 - 1
        if data["augment"]["flip"]:
            x0 = torch.stack([x.flip(-1) if draw_mirrored(seed, step, n) else x for n, x in enumerate(x0)])
        t = torch.tensor([draw_timestep(seed, step, n, schedule.config.num_train_timesteps) for n in range(len(x0))])
        eps = torch.from_numpy(np.stack([draw_noise(seed, step, n, x0[0].numel()) for n in range(len(x0))])).reshape(x0.shape)
        condition = {}
        if net.config.num_class_embeds or net.config.class_embed_type:
            hidden = [draw_hidden(seed, step, n, objective["label_dropout"]) for n in range(len(x0))]
            condition["class_labels"] = torch.tensor([classes if hide else int(labels[i]) for i, hide in zip(chosen, hidden)])
        error = net(schedule.add_noise(x0, eps, t), t, **condition).sample - (schedule.get_velocity(x0, eps, t) if velocity else eps)
        weight = torch.ones(len(x0))
        if objective["snr_gamma"]:
            snr = schedule.alphas_cumprod[t] / (1 - schedule.alphas_cumprod[t])
            weight = snr.clamp(max=objective["snr_gamma"]) / (snr + 1 if velocity else snr)
        loss = (weight * error.square().mean(dim=(1, 2, 3))).mean()
        optimizer.zero_grad()
        loss.backward()
        if h["clip_grad_norm"]:
            torch.nn.utils.clip_grad_norm_(net.parameters(), h["clip_grad_norm"])
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        yield loss.item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", metavar="RUN|JOB", help="our run; with --make a job")
    parser.add_argument("--make", metavar="WEIGHTS", help="write a diffusers folder of the job's net, and do no more")
    parser.add_argument("--last", type=int, default=50, help="steps at the end that are compared (50)")
    parser.add_argument("--tolerance", type=float, default=0.02, help="relative difference of their mean losses (0.02)")
    options = parser.parse_args()
    if options.make:
        return make(options.make, options.what)

    run = pathlib.Path(options.what)
    job = read_yaml(run / "job.yaml")
    refuse(job)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if '"training"' in line]
    if [line["step"] for line in lines] != list(range(1, len(lines) + 1)):
        sys.exit("the run's metrics skip steps: log_every=1 is needed")
    ours, theirs = [line["loss"] for line in lines], []
    for loss in train(run, job, [line["lr"] for line in lines]):
        theirs.append(loss)
        print(f"step {len(theirs)}: ours {ours[len(theirs) - 1]:.6f}, diffusers {loss:.6f}", flush=True)
    mean, expected = np.mean(ours[-options.last:]), np.mean(theirs[-options.last:])
    difference = abs(mean - expected) / expected
    ok = difference <= options.tolerance
    print(f"{'ok    ' if ok else 'FAILED'} mean loss of the last {min(options.last, len(ours))} of {len(ours)} steps: ours {mean:.6f}, "
          f"diffusers {expected:.6f}, relative difference {difference:.3g} (at most {options.tolerance:g})")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
