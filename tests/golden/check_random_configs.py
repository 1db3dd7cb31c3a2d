#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks StableDiffusionPipeline folders of random small configurations against diffusers and transformers on this machine
(torch, diffusers 0.42, transformers 5), and that what is not supported is refused by its key.

  python tests/golden/check_random_configs.py [--lockstep build/release/lockstep] [--seeds 20] [--first 0]

Each seed draws the configurations of text encoder, UNet, autoencoder and scheduler, their weights, a size of the latents and
the latents to begin with. Held against each other are each network by itself (build/release/bench/program_bench) and pictures of
five guided steps (`lockstep sample`), in shares of the largest number.
Prints a line a check and exits with 1 if one failed.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import torch
from check_diffusers import Program, check, failed
from diffusers import (AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler,
                       StableDiffusionPipeline, UNet2DConditionModel)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

ROOT = pathlib.Path(__file__).resolve().parents[2]
LENGTH, STEPS, SAMPLER_OF = 24, 5, {DDIMScheduler: "ddim", PNDMScheduler: "pndm", DPMSolverMultistepScheduler: "dpm_solver",
                                    EulerDiscreteScheduler: "euler"}  # fmt: skip
PROMPTS = ["a small red seven at the top left on a blue background", "A large digit THREE, in white!"]
NEGATIVE = "two, green"


def text_config(r):
    heads = r.choice([1, 2, 3, 4])
    return dict(vocab_size=r.choice([681, 700]), hidden_size=heads * r.choice([4, 7, 8, 16]), intermediate_size=r.randint(5, 90),
                num_hidden_layers=r.randint(1, 4), num_attention_heads=heads, max_position_embeddings=r.choice([LENGTH, 40]),
                hidden_act=r.choice(["quick_gelu", "gelu"]), layer_norm_eps=r.choice([1e-5, 1e-3]), projection_dim=r.choice([8, 512]),
                bos_token_id=0, eos_token_id=1, pad_token_id=1)  # fmt: skip


def unet_config(r, cross_attention_dim, latent_channels):
    levels, groups = r.randint(2, 4), r.choice([1, 2, 4])
    heads = [r.choice([1, 2, 4]) for _ in range(levels)]
    one_or_list = lambda choose: r.choice([choose(), [choose() for _ in range(levels)]])  # noqa: E731
    heads = r.choice([heads[0], heads])
    return dict(
        in_channels=latent_channels, out_channels=latent_channels, norm_num_groups=groups, attention_head_dim=heads,
        block_out_channels=[4 * r.randint(1, 6) for _ in range(levels)],
        down_block_types=[r.choice(["CrossAttnDownBlock2D", "DownBlock2D"]) for _ in range(levels)],
        up_block_types=[r.choice(["CrossAttnUpBlock2D", "UpBlock2D"]) for _ in range(levels)],
        mid_block_type=r.choice(["UNetMidBlock2DCrossAttn"] * 3 + [None]), cross_attention_dim=cross_attention_dim,
        layers_per_block=one_or_list(lambda: r.randint(1, 2)), transformer_layers_per_block=one_or_list(lambda: r.randint(1, 2)),
        use_linear_projection=r.random() < 0.5, resnet_time_scale_shift=r.choice(["default", "scale_shift"]),
        time_embedding_dim=r.choice([None, 20, 33]), act_fn=r.choice(["silu", "swish", "relu", "gelu"]),
        downsample_padding=r.choice([1, 1, 0]), mid_block_scale_factor=r.choice([1, 1.4142135]), norm_eps=r.choice([1e-5, 1e-3]),
        center_input_sample=r.random() < 0.3, flip_sin_to_cos=r.random() < 0.7, freq_shift=r.choice([0, 1]),
        upcast_attention=r.random() < 0.3, dropout=r.choice([0.0, 0.1]))  # fmt: skip


def vae_config(r, latent_channels):
    levels = r.randint(1, 4)
    return dict(
        latent_channels=latent_channels, block_out_channels=[4 * r.randint(1, 4) for _ in range(levels)],
        down_block_types=["DownEncoderBlock2D"] * levels, up_block_types=["UpDecoderBlock2D"] * levels,
        norm_num_groups=r.choice([1, 2, 4]), layers_per_block=r.randint(1, 3), act_fn=r.choice(["silu", "relu", "gelu"]),
        use_quant_conv=r.random() < 0.7, use_post_quant_conv=r.random() < 0.7, mid_block_add_attention=r.random() < 0.7,
        scaling_factor=r.choice([0.18215, 0.7]))  # fmt: skip


def scheduler(r):
    kind = r.choice(list(SAMPLER_OF))
    options = dict(beta_start=0.00085, beta_end=0.012, beta_schedule=r.choice(["scaled_linear", "linear"]),
                   prediction_type=r.choice(["epsilon", "v_prediction"]), steps_offset=1)  # fmt: skip
    if kind in (DDIMScheduler, PNDMScheduler):
        options |= dict(set_alpha_to_one=r.random() < 0.5)
    if kind is PNDMScheduler:
        options |= dict(skip_prk_steps=True)
    elif r.random() < 0.5:
        options |= dict(timestep_spacing=r.choice(["leading", "trailing", "linspace"]))
    if kind is DDIMScheduler:
        options |= dict(clip_sample=False)
    return kind(**options)


def latents_size(r, scale, unet):
    """Pictures of a pipeline have sides that 8 divides, so that latents of eightfold scale alone may be odd. Convolutions that
    pad one side alone halve no single pixel."""
    least = 2 if unet["downsample_padding"] else 2 ** len(unet["block_out_channels"])
    return [max(r.randint(2, 9) * max(1, 8 // scale), least) for _ in range(2)]


def fill(net):
    """PyTorch's initial weights, which magnify rounding least; the norms' are not left at one and zero."""
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "norm" in name and p.dim() == 1:
                p.add_(torch.randn_like(p), alpha=0.1)
    return net.eval()


def older_text_encoder(folder):
    """As transformers before 4.31 wrote it, with what a CLIP of two halves has beside it."""
    file = folder / "text_encoder/model.safetensors"
    tensors = {n if n.startswith("text_model.") else "text_model." + n: t for n, t in load_file(file).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(LENGTH)[None]
    tensors["text_projection.weight"] = torch.randn(5, 6)
    save_file(tensors, file, metadata={"format": "pt"})


def draw_pipeline(seed, folder):
    r = random.Random(seed)
    torch.manual_seed(seed)
    text = text_config(r)
    latent_channels = r.choice([1, 3, 4])
    unet, vae = unet_config(r, text["hidden_size"], latent_channels), vae_config(r, latent_channels)
    size = latents_size(r, 2 ** (len(vae["block_out_channels"]) - 1), unet)
    sizes = (r.choice([size, 8, [16, 8]]),)  # the configuration's, another than is drawn
    pipe = StableDiffusionPipeline(
        vae=fill(AutoencoderKL(**vae)), text_encoder=fill(CLIPTextModel(CLIPTextConfig(**text))),
        unet=fill(UNet2DConditionModel(sample_size=sizes[0], **unet)), scheduler=scheduler(r),
        tokenizer=CLIPTokenizer.from_pretrained(ROOT / "configs/data/clip_small"), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False)  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder)
    if r.random() < 0.3:
        older_text_encoder(folder)
    return pipe, size, round(r.uniform(1.5, 8), 2)


def share(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max())


class Networks:
    """The programs of a folder, asked one by one."""

    def __init__(self, bench, scratch):
        self.bench, self.scratch = bench, scratch

    def __call__(self, folder, program, **tensors):
        inputs, outputs = self.scratch / "inputs.safetensors", self.scratch / "outputs.safetensors"
        save_file({n: t.contiguous() for n, t in tensors.items()}, inputs)
        command = [self.bench, folder, program, "--inputs", inputs, "--outputs", outputs]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            sys.exit(f"program_bench {program}: exit {done.returncode}\n{done.stderr}")
        (answer,) = load_file(outputs).values()
        return answer


def networks_alike(networks, folder, pipe, size, name):
    ids = pipe.tokenizer([*PROMPTS, NEGATIVE], padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt").input_ids
    text = pipe.text_encoder(ids).last_hidden_state
    check(f"{name}: text encoder", share(networks(folder, "encode_text", tokens=ids.int()), text), 1e-5)
    # At the size that the folder's files say or any other.
    x = torch.randn(3, pipe.unet.config.in_channels, *size)
    t = torch.tensor([0.0, 437.0, 999.0])
    said = networks(folder, "denoise", images=x, timesteps=t, text=text)
    check(f"{name}: UNet", share(said, pipe.unet(x, t, text).sample), 1e-4)
    decoded = networks(folder, "decode", images=x)
    check(f"{name}: VAE", share(decoded, pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample), 1e-4)


def pictures_alike(program, folder, pipe, size, guidance, name):
    noise, raw = program.folder / "noise.safetensors", program.folder / "raw.safetensors"
    latents = torch.randn(len(PROMPTS), pipe.unet.config.in_channels, *size)
    save_file({"noise": latents}, noise)
    height, width = (side * pipe.vae_scale_factor for side in size)
    words = [word for p in PROMPTS for word in ("--prompt", p)]
    program("sample", folder, *words, "--negative-prompt", NEGATIVE, "--steps", STEPS, "--guidance", guidance, "--height", height,
            "--width", width, "--compat", "diffusers", "--init-noise", noise, "--raw", raw, "--out", program.folder / "grid.png")  # fmt: skip
    drawn = pipe(PROMPTS, negative_prompt=[NEGATIVE] * len(PROMPTS), height=height, width=width, latents=latents,
                 num_inference_steps=STEPS, guidance_scale=guidance, output_type="latent").images  # fmt: skip
    theirs = pipe.vae.decode(drawn / pipe.vae.config.scaling_factor).sample
    check(f"{name}: pictures, {SAMPLER_OF[type(pipe.scheduler)]}", share(load_file(raw)["images"], theirs), 1e-3)


# What a configuration may say and this program does not compute: (file, key, value).
REFUSED = [("unet", key, value) for key, value in {
    "act_fn": "mish", "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "attention_type": "gated",
    "class_embed_type": "timestep", "class_embeddings_concat": True, "conv_in_kernel": 5, "conv_out_kernel": 1,
    "cross_attention_dim": [8, 16], "cross_attention_norm": "layer_norm", "down_block_types": ["ResnetDownsampleBlock2D"] * 4,
    "dual_cross_attention": True, "encoder_hid_dim": 8, "encoder_hid_dim_type": "text_proj",
    "mid_block_only_cross_attention": True, "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "norm_num_groups": None,
    "num_attention_heads": 2, "num_class_embeds": 3, "only_cross_attention": True, "projection_class_embeddings_input_dim": 8,
    "resnet_out_scale_factor": 2, "resnet_skip_time_act": True, "reverse_transformer_layers_per_block": [1, 1],
    "time_cond_proj_dim": 8, "time_embedding_act_fn": "silu", "time_embedding_type": "fourier", "timestep_post_act": "silu",
    "transformer_layers_per_block": [[1, 2], [1, 2]], "up_block_types": ["KUpBlock2D"] * 4, "invented_key": 1,
}.items()] + [("vae", key, value) for key, value in {
    "act_fn": "mish", "down_block_types": ["AttnDownEncoderBlock2D"], "latents_mean": [0.0], "latents_std": [1.0], "shift_factor": 0.1,
    "up_block_types": ["AttnUpDecoderBlock2D"], "invented_key": 1,
}.items()] + [("text_encoder", key, value) for key, value in {
    "attention_dropout": 0.1, "hidden_act": "relu", "model_type": "bert", "num_attention_heads": 7, "use_attention_mask": True,
}.items()]  # fmt: skip


def refused_by_key(program, folder):
    """Counts configurations that were taken, or refused without their key's name and the file's."""
    wrong = []
    for part, key, value in REFUSED:
        file = folder / part / "config.json"
        before = file.read_text()
        file.write_text(json.dumps(json.loads(before) | {key: value}))
        words = [program.path, "sample", folder, "--prompt", "a", "--steps", "1", "--out", program.folder / "refused.png"]
        done = subprocess.run([str(w) for w in words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        file.write_text(before)
        if done.returncode != 78 or key not in done.stderr or f"{part}/config.json" not in done.stderr:
            wrong.append(f"{part}.{key} = {value!r}: exit {done.returncode}, {done.stderr.strip()}")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    check(f"of {len(REFUSED)} configurations that are not supported, not refused by key", len(wrong), 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lockstep", type=pathlib.Path, default=ROOT / "build/release/lockstep")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    disable_progress_bar()
    for seed in range(options.first, options.first + options.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            program = Program(options.lockstep, scratch)
            pipe, size, guidance = draw_pipeline(seed, scratch / "pipeline")
            networks_alike(Networks(options.lockstep.parent / "bench/program_bench", scratch), scratch / "pipeline", pipe, size, f"seed {seed}")
            pictures_alike(program, scratch / "pipeline", pipe, size, guidance, f"seed {seed}")
            if seed == options.first:
                refused_by_key(program, scratch / "pipeline")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
