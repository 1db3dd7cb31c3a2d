#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/pipeline.json and pipeline.safetensors: diffusers' StableDiffusionPipeline in small configurations of
Stable Diffusion 1's and 2's kind, asked for two pictures each.

  python tests/golden/make_pipeline.py        needs torch, diffusers 0.42, transformers 5, safetensors, numpy

Weights and the latents to begin with are formulas (unet_weights.py); the tokenizer is configs/data/clip_small. Kept are the
folder's configuration files and the pictures before rounding.
"""

import json
import pathlib
import tempfile

import torch
from diffusers import (AutoencoderKL, AutoencoderTiny, DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler,
                       StableDiffusionPipeline, UNet2DConditionModel)
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from make_text_to_image import CD, CU, D, DU, ED, U, fill, formula, make_text_encoder

HERE = pathlib.Path(__file__).parent
PROMPTS = ["a small red seven at the top left on a blue background", "A large digit THREE, in white!"]
NEGATIVE = "two, green"
STEPS, GUIDANCE, LATENTS = 5, 3.0, 5000

CASES = {
    "sd1": {
        "text_encoder": dict(vocab_size=681, hidden_size=32, intermediate_size=37, num_hidden_layers=3, num_attention_heads=4,
            max_position_embeddings=24, hidden_act="quick_gelu"),
        "unet": dict(sample_size=8, block_out_channels=(8, 16), down_block_types=(CD, D), up_block_types=(U, CU),
            cross_attention_dim=32, attention_head_dim=2, norm_num_groups=4, layers_per_block=1),
        "vae": dict(block_out_channels=(4, 8), down_block_types=(ED, ED), up_block_types=(DU, DU), norm_num_groups=4,
            layers_per_block=1, sample_size=16),
        "scheduler": DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1),
    },
    "sd2": {
        "text_encoder": dict(vocab_size=700, hidden_size=24, intermediate_size=96, num_hidden_layers=2, num_attention_heads=3,
            max_position_embeddings=24, hidden_act="gelu"),
        "unet": dict(sample_size=(6, 10), block_out_channels=(8, 16), down_block_types=(CD, D), up_block_types=(U, CU),
            cross_attention_dim=24, attention_head_dim=(2, 4), use_linear_projection=True, norm_num_groups=4,
            layers_per_block=2),
        "vae": dict(block_out_channels=(4, 8, 8), down_block_types=(ED, ED, ED), up_block_types=(DU, DU, DU),
            norm_num_groups=2, layers_per_block=2, scaling_factor=0.5, sample_size=20),
        "scheduler": DPMSolverMultistepScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
            prediction_type="v_prediction", timestep_spacing="trailing"),
    },
    # As sd1, with the small autoencoder, and sampled as Stable Diffusion 1.5's folder says.
    "tiny_vae": {
        "text_encoder": dict(vocab_size=681, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=24, hidden_act="quick_gelu"),
        "unet": dict(sample_size=8, block_out_channels=(8, 8), down_block_types=(CD, D), up_block_types=(U, CU),
            cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4, layers_per_block=1),
        "vae": dict(encoder_block_out_channels=(4, 4), decoder_block_out_channels=(4, 4), num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1)),
        "scheduler": PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
            set_alpha_to_one=False, steps_offset=1),
    },
}


def pipeline_of(case):
    tokenizer = CLIPTokenizer.from_pretrained(HERE.parent.parent / "configs/data/clip_small")
    return StableDiffusionPipeline(
        vae=fill((AutoencoderTiny if "num_decoder_blocks" in case["vae"] else AutoencoderKL)(**case["vae"])), text_encoder=fill(make_text_encoder(case["text_encoder"]), True),
        tokenizer=tokenizer, unet=fill(UNet2DConditionModel(**case["unet"])), scheduler=case["scheduler"],
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def main():
    golden, tensors = {}, {}
    for index, (name, case) in enumerate(CASES.items()):
        pipe = pipeline_of(case)
        pipe.set_progress_bar_config(disable=True)
        with tempfile.TemporaryDirectory() as folder:
            pipe.save_pretrained(folder)
            files = ("model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
                     "scheduler/scheduler_config.json")
            configs = {f: (pathlib.Path(folder) / f).read_text() for f in files}
        size = pipe.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        latents = 4 * formula((2, 4, height, width), LATENTS + index)
        levels = case["vae"].get("block_out_channels") or case["vae"]["num_decoder_blocks"]
        scale = 2 ** (len(levels) - 1)
        drawn = pipe(PROMPTS, negative_prompt=[NEGATIVE] * 2, height=height * scale, width=width * scale,
            latents=latents / pipe.scheduler.init_noise_sigma, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
            output_type="latent").images
        with torch.no_grad():
            images = pipe.vae.decode(drawn / pipe.vae.config.scaling_factor).sample
        golden[name] = {"files": configs, "latents": [2, 4, height, width]}
        tensors[f"{name}.images"] = images.contiguous()
    golden |= {"prompts": PROMPTS, "negative_prompt": NEGATIVE, "steps": STEPS, "guidance": GUIDANCE}
    (HERE / "pipeline.json").write_text(json.dumps(golden, indent=1) + "\n")
    save_file(tensors, HERE / "pipeline.safetensors")


if __name__ == "__main__":
    main()
