# SPDX-License-Identifier: Apache-2.0
"""PyTorch's side of the ResNet and UNet benches: torchvision's ResNet-18, diffusers' UNet2DModel of the DDPM paper.

    python bench/peers/train_images.py --model resnet18|ddpm_cifar10 --make WEIGHTS                     random weights to start from
    python bench/peers/train_images.py --model resnet18 --from WEIGHTS --pictures FOLDER --batch 64 --steps 6
    python bench/peers/train_images.py --model ddpm_cifar10 --from WEIGHTS --sample 20 --init-noise FILE --compare FILE

The last one draws with DDIM from the tensor `noise` of a safetensors file, as many images as it holds, and says how far they
are from the tensor `images` of another; `lockstep sample` writes both (--save-noise, --raw). Threads and precision (fp32, or bf16 by autocast) as given, in one process; the pictures are tensors in memory before the
first step, and every step takes the same batch: the first --batch pictures, with no augmentation. The UNet's noise and
timesteps are ours (tests/golden/diffusion_peer.py), so that the first loss is the same as ours. The last line is a JSON object:
seconds of each step (on a GPU: until it is handed over), images_per_second and samples_per_second (the same) after --warmup
steps and losses, each of the first --steps steps, or seconds of all steps and difference; torch.
"""

import argparse
import contextlib
import json
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "golden"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from diffusion_peer import CIFAR10_CONFIG, draw_noise, draw_timestep  # noqa: E402
from ranks import exact_fp32, steps_after  # noqa: E402
from torch.nn import functional as F  # noqa: E402


def resnet18():
    import torchvision

    net = torchvision.models.resnet18(num_classes=10)  # in its form for 32×32 pictures
    net.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    net.maxpool = torch.nn.Identity()
    return net


def ddpm_cifar10(narrow):
    from diffusers import UNet2DModel

    channels = {"block_out_channels": (32, 64, 64, 64)} if narrow else {}
    return UNet2DModel(**{**CIFAR10_CONFIG, **channels})


def ddim():
    from diffusers import DDIMScheduler

    return DDIMScheduler(num_train_timesteps=1000)


def sample(net, cast, a):
    """Seconds of all steps after one evaluation that is not counted, and the root mean square difference of pixels (0 to 1)."""
    from safetensors.torch import load_file

    x = load_file(a.init_noise)["noise"]
    if a.channels_last:
        x = x.to(memory_format=torch.channels_last)
    scheduler = ddim()
    scheduler.set_timesteps(a.sample)
    net.eval()
    with torch.no_grad(), cast:
        net(x, scheduler.timesteps[0])
        started = time.perf_counter()
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t).sample, t, x).prev_sample
        seconds = time.perf_counter() - started
    return seconds, (x - load_file(a.compare)["images"]).square().mean().sqrt().item() / 2


def pictures(folder, count):
    from PIL import Image

    classes = sorted(p for p in pathlib.Path(folder).iterdir() if p.is_dir())
    files = [(f, label) for label, c in enumerate(classes) for f in sorted(c.iterdir())][:count]
    pixels = np.stack([np.asarray(Image.open(f).convert("RGB")) for f, _ in files])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, torch.tensor([label for _, label in files])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["resnet18", "ddpm_cifar10"], required=True)
    parser.add_argument("--make", metavar="WEIGHTS")
    parser.add_argument("--from", dest="weights", metavar="WEIGHTS", help="default: random ones, of --seed")
    parser.add_argument("--pictures", metavar="FOLDER", help="a folder of PNGs for each class")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", nargs="?", const="max-autotune", metavar="MODE", help="the net through torch.compile; default max-autotune")
    parser.add_argument("--seconds", type=float, default=0, help="after the warm-up, at least so long; --steps at least too")
    parser.add_argument("--warmup", type=int, default=1, help="steps before the clock of images_per_second starts")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--narrow", action="store_true", help="a quarter of the UNet's channels, to see that all of it works")
    parser.add_argument("--sample", type=int, metavar="STEPS")
    parser.add_argument("--init-noise", metavar="FILE")
    parser.add_argument("--compare", metavar="FILE")
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()

    from safetensors.torch import load_file, save_file

    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    exact_fp32(torch)
    diffusion = a.model == "ddpm_cifar10"
    net = ddpm_cifar10(a.narrow) if diffusion else resnet18()
    if a.make:
        if diffusion:
            net.save_pretrained(a.make)
            ddim().save_pretrained(pathlib.Path(a.make).parent / "scheduler")
        else:
            save_file(net.state_dict(), a.make)
        return
    if a.weights:
        weights = pathlib.Path(a.weights)
        net.load_state_dict(load_file(weights / "diffusion_pytorch_model.safetensors" if diffusion else weights))
    net = net.to(a.device)
    if a.channels_last:
        net = net.to(memory_format=torch.channels_last)
    cast = torch.autocast(a.device, dtype=torch.bfloat16) if a.precision == "bf16" else contextlib.nullcontext()

    if a.sample:
        seconds, difference = sample(net, cast, a)
        print(json.dumps({"torch": torch.__version__, "seconds": seconds, "difference": difference}))
        return

    net.train()
    on_gpu = a.device == "cuda"
    x, labels = (part.to(a.device) for part in pictures(a.pictures, a.batch))
    if diffusion:
        x = x * 2 - 1
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-4, weight_decay=0, fused=on_gpu)
        betas = torch.linspace(1e-4, 0.02, 1000)
        alphas = torch.cumprod(1 - betas, 0).to(a.device)
        size = tuple(x.shape[1:])
        elements = int(np.prod(size))
    else:
        mean, std = (torch.tensor(v, device=a.device)[:, None, None] for v in ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]))
        x = (x - mean) / std
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=on_gpu)
    if a.channels_last:
        x = x.to(memory_format=torch.channels_last)
    # Drawn before the clock starts, for the first steps and then again; ours draws in the step.
    drawn = []
    for step in range(min(a.steps, 32) if diffusion else 0):
        t = torch.tensor([draw_timestep(a.seed, step, n, 1000) for n in range(a.batch)])
        noise = torch.stack([torch.from_numpy(draw_noise(a.seed, step, n, elements)).reshape(size) for n in range(a.batch)])
        drawn.append((t.to(a.device), noise.to(a.device)))
    step_net = torch.compile(net, mode=a.compile) if a.compile else net
    settle = torch.cuda.synchronize if on_gpu else lambda: None
    losses, seconds, started_at, elapsed = [], [], None, None
    step, last = 0, a.steps
    while step < last:
        if step == a.warmup:
            settle()
            started_at = time.perf_counter()
        started = time.perf_counter()
        optimizer.zero_grad()
        with cast:
            if diffusion:
                t, noise = drawn[step % len(drawn)]
                abar = alphas[t][:, None, None, None]
                loss = F.mse_loss(step_net(abar.sqrt() * x + (1 - abar).sqrt() * noise, t).sample.float(), noise)
            else:
                loss = F.cross_entropy(step_net(x).float(), labels, label_smoothing=0.1)
        loss.backward()
        if diffusion:
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1)
        optimizer.step()
        if step < a.steps:
            losses.append(loss.detach() if on_gpu else loss.item())  # which a GPU would have to wait for
            seconds.append(time.perf_counter() - started)
        step += 1
        if step == last and started_at is not None:
            settle()
            elapsed = time.perf_counter() - started_at
            last = steps_after(step, a.warmup, elapsed, a.seconds)
    rate = (step - a.warmup) * a.batch / elapsed if elapsed else None
    print(json.dumps({"torch": torch.__version__, "seconds": seconds, "images_per_second": rate, "samples_per_second": rate,
                      "losses": [float(v) for v in losses]}))  # fmt: skip


if __name__ == "__main__":
    main()
