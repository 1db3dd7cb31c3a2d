# SPDX-License-Identifier: Apache-2.0
"""PyTorch's side of the bench of configs/painter_digits.yaml: transformers' CLIPTextModel and diffusers' UNet2DConditionModel,
trained together from captions.

    python bench/peers/train_painter.py --from FOLDER --pictures FOLDER --ranks 2 --batch 32 --steps 20

FOLDER of --from: a run of ours, a StableDiffusionPipeline whose unet/ and text_encoder/ both sides start from; --pictures: a
folder with metadata.jsonl. Pictures and tokens are tensors in memory before the first step, and every step takes the same
batch: the first --batch pictures. Noise and timesteps are ours (tests/golden/diffusion_peer.py), so that the first loss is the
same as ours. The last line is a JSON object: seconds of each step, losses, torch.
"""

import argparse
import json
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "golden"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from diffusion_peer import draw_noise, draw_timestep  # noqa: E402
from ranks import exact_fp32, run_ranks  # noqa: E402

# Of configs/painter_digits.yaml.
LR, CLIP, EMA = 0.0005, 1.0, 0.998


def batch_of(folder, tokenizer, count):
    from PIL import Image

    entries = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()][:count]
    pixels = np.stack([np.asarray(Image.open(folder / e["file_name"]).convert("RGB")) for e in entries])
    ids = tokenizer([e["text"] for e in entries], padding="max_length", truncation=True, return_tensors="pt").input_ids
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1, ids


class Painter(torch.nn.Module):
    """Both nets as one module, for DistributedDataParallel."""

    def __init__(self, folder):
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextModel

        super().__init__()
        self.unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
        self.text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")

    def forward(self, x, t, ids):
        return self.unet(x, t, self.text_encoder(ids).last_hidden_state).sample


def train(a, rank, ranks):
    from diffusers import DDPMScheduler
    from torch.nn.parallel import DistributedDataParallel
    from transformers import CLIPTokenizer

    torch.set_num_threads(a.threads)
    exact_fp32(torch)
    if ranks > 1:
        dist.init_process_group("gloo")
    assert a.batch % ranks == 0, "--batch must be a multiple of --ranks"
    mine = range(rank * a.batch // ranks, (rank + 1) * a.batch // ranks)
    net = Painter(a.folder).train()
    # Nothing but the last hidden state is read of the text encoder.
    model = DistributedDataParallel(net, find_unused_parameters=False) if ranks > 1 else net
    schedule = DDPMScheduler.from_pretrained(a.folder, subfolder="scheduler")
    assert schedule.config.prediction_type == "sample"
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=0)
    parameters = list(net.parameters())
    averages = [p.detach().clone() for p in parameters]
    x0, ids = (part[mine.start : mine.stop] for part in batch_of(a.pictures, CLIPTokenizer.from_pretrained(a.folder / "tokenizer"), a.batch))
    drawn = []  # before the clock starts; ours draws in the step
    for step in range(a.steps):
        t = torch.tensor([draw_timestep(a.seed, step, n, 1000) for n in mine])
        eps = torch.stack([torch.from_numpy(draw_noise(a.seed, step, n, x0[0].numel())).reshape(x0[0].shape) for n in mine])
        drawn.append((t, eps))
    losses, seconds = [], []
    for t, eps in drawn:
        started = time.perf_counter()
        optimizer.zero_grad()
        said = model(schedule.add_noise(x0, eps, t), t, ids)
        loss = torch.nn.functional.mse_loss(said, x0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1 - EMA)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - started)
    losses = torch.tensor(losses)
    if ranks > 1:
        dist.all_reduce(losses)
        losses /= ranks
    if rank == 0:
        print(json.dumps({"torch": torch.__version__, "seconds": seconds, "losses": losses.tolist()}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", metavar="FOLDER", type=pathlib.Path, required=True)
    parser.add_argument("--pictures", metavar="FOLDER", type=pathlib.Path, required=True)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    run_ranks(a.ranks, lambda rank, ranks: train(a, rank, ranks))


if __name__ == "__main__":
    main()
