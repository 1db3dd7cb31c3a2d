#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/text_to_image.json and text_to_image.safetensors: transformers' CLIPTextModel, diffusers'
UNet2DConditionModel, AutoencoderKL and AutoencoderTiny in small configurations.

  python tests/golden/make_text_to_image.py        needs torch, diffusers 0.42, transformers 5, safetensors, numpy

Each case: the net's output for a batch of two, in float32, and for some the gradients of sum(output * g), of the UNet and
of the text encoder before it together. Weights and inputs are formulas (unet_weights.py). Of a gradient its norm is kept, its
product with a vector that is a formula too, and its first, middle and last number. `in_use` has the tensors of
configurations that are in use: how many, their elements, and a hash of names and shapes.
"""

import hashlib
import json
import pathlib

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from unet_weights import uniform, weight

HERE = pathlib.Path(__file__).parent
torch.set_num_threads(1)
torch.backends.mkldnn.enabled = False

INPUT, GRADIENT, PROJECTION, TEXT = 1000, 2000, 3000, 4000  # numbers of the formulas beside those of the weights

CD, D, CU, U = "CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"
ED, DU = "DownEncoderBlock2D", "UpDecoderBlock2D"

TEXT_ENCODERS = {
    # As SD 1's and SD 2's, which differ in the activation and the widths.
    "clip_l": dict(vocab_size=100, hidden_size=32, intermediate_size=37, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=13, hidden_act="quick_gelu"),
    "clip_h": dict(vocab_size=60, hidden_size=24, intermediate_size=96, num_hidden_layers=2, num_attention_heads=3,
        max_position_embeddings=77, hidden_act="gelu", layer_norm_eps=1e-4),
}
TOKENS = {"clip_l": 13, "clip_h": 9}  # lengths of texts: all positions, and fewer

BASE = dict(in_channels=4, out_channels=4, norm_num_groups=4, layers_per_block=1)
# (configuration, [height, width] of the sample, the text encoder before it)
UNETS = {
    "sd1": (dict(block_out_channels=(8, 16), down_block_types=(CD, D), up_block_types=(U, CU), cross_attention_dim=32,
        attention_head_dim=2), (8, 8), "clip_l"),
    "sd2": (dict(block_out_channels=(8, 16), down_block_types=(CD, D), up_block_types=(U, CU), cross_attention_dim=24,
        attention_head_dim=(2, 4), use_linear_projection=True), (8, 6), "clip_h"),
    # 9x7 -> 5x4 -> 3x2, and up again to the sizes of the skips.
    "odd_sizes": (dict(block_out_channels=(4, 8, 8), layers_per_block=2, down_block_types=(D, CD, D),
        up_block_types=(U, CU, U), cross_attention_dim=8, attention_head_dim=2, norm_num_groups=2), (9, 7), None),
    "deep_transformers": (dict(block_out_channels=(8, 16), layers_per_block=(1, 2), down_block_types=(CD, CD),
        up_block_types=(CU, CU), cross_attention_dim=12, attention_head_dim=(1, 8), transformer_layers_per_block=(1, 2),
        norm_eps=1e-3, center_input_sample=True, flip_sin_to_cos=False, freq_shift=1, mid_block_scale_factor=1.4142135,
        act_fn="gelu", time_embedding_dim=20), (6, 4), None),
    "no_mid_block": (dict(block_out_channels=(8, 8), down_block_types=(D, CD), up_block_types=(CU, U), mid_block_type=None,
        cross_attention_dim=8, attention_head_dim=4, downsample_padding=0, resnet_time_scale_shift="scale_shift",
        act_fn="relu", in_channels=3, out_channels=5), (8, 8), None),
    "text_time": (dict(block_out_channels=(8, 16), down_block_types=(D, CD), up_block_types=(CU, U), cross_attention_dim=32,
        attention_head_dim=2, addition_embed_type="text", addition_embed_type_num_heads=4), (6, 8), "clip_l"),
}

AUTOENCODERS = {
    "tiny": (dict(block_out_channels=(8, 16), down_block_types=(ED, ED), up_block_types=(DU, DU), norm_num_groups=4),
        (12, 10)),
    # Three levels, two resnets each, an odd image, another latent.
    "three": (dict(block_out_channels=(8, 8, 12), layers_per_block=2, down_block_types=(ED,) * 3, up_block_types=(DU,) * 3,
        norm_num_groups=2, latent_channels=3, in_channels=1, out_channels=1, act_fn="swish"), (21, 9)),
    "no_attention": (dict(block_out_channels=(8,), norm_num_groups=4, mid_block_add_attention=False, use_quant_conv=False,
        use_post_quant_conv=False), (5, 6)),
}

TINY_AUTOENCODERS = {
    "two": (dict(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(12, 12), num_encoder_blocks=(1, 2),
        num_decoder_blocks=(2, 1)), (12, 10)),
    # An odd image, whose latents are rounded up; a level without blocks.
    "three": (dict(encoder_block_out_channels=(6,) * 3, decoder_block_out_channels=(4,) * 3, num_encoder_blocks=(1, 0, 1),
        num_decoder_blocks=(1, 1, 1), in_channels=1, out_channels=2, latent_channels=3, act_fn="silu"), (21, 9)),
}

# In use: Stable Diffusion 1.5 and 2.1, and the smallest models that diffusers' tests know.
BOC = (320, 640, 1280, 1280)
VAE = dict(block_out_channels=(128, 256, 512, 512), down_block_types=(ED,) * 4, up_block_types=(DU,) * 4, layers_per_block=2)
IN_USE = {
    "text_encoder": {
        "sd15": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072),
        "sd21": dict(hidden_size=1024, num_hidden_layers=23, num_attention_heads=16, intermediate_size=4096, hidden_act="gelu"),
        "tiny": dict(vocab_size=1000, hidden_size=32, num_hidden_layers=5, num_attention_heads=4, intermediate_size=37),
    },
    "unet": {
        "sd15": dict(sample_size=64, cross_attention_dim=768),
        "sd21": dict(sample_size=96, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True),
        "tiny": dict(sample_size=32, block_out_channels=(32, 64), down_block_types=(D, CD), up_block_types=(CU, U),
            cross_attention_dim=32),
        "smallest": dict(sample_size=16, block_out_channels=(4, 8), layers_per_block=1, down_block_types=(D, CD),
            up_block_types=(CU, U), cross_attention_dim=8, norm_num_groups=2),
    },
    "vae": {
        "sd15": dict(sample_size=512, **VAE),
        "tiny": dict(sample_size=128, block_out_channels=(32, 64), down_block_types=(ED, ED), up_block_types=(DU, DU)),
    },
    "tiny_vae": {"taesd": {}},
}


def plain(config):
    return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}


def name_in_file(name, text_encoder):
    """transformers 5 has no `text_model` level in the module; files have it."""
    return name if not text_encoder or name.startswith("text_model.") else "text_model." + name


def fill(net, text_encoder=False):
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(torch.from_numpy(weight(name_in_file(name, text_encoder), tuple(p.shape))))
    return net.eval()


def formula(shape, number):
    return torch.from_numpy(uniform(int(np.prod(shape)), number)).reshape(shape)


def make_text_encoder(config):
    # The ids belong to the pooled output; those of the class lie beyond small vocabularies.
    return CLIPTextModel(CLIPTextConfig(**config, bos_token_id=0, eos_token_id=1, pad_token_id=1))


def text_encoder(name):
    return fill(make_text_encoder(TEXT_ENCODERS[name]), True)


def tokens(name, index):
    count = TEXT_ENCODERS[name]["vocab_size"]
    return ((formula((2, TOKENS[name]), TEXT + index) + 0.5) * count).long()


def gradients(net, prefix, is_text_encoder=False):
    found = {}
    for name, p in net.named_parameters():
        flat = p.grad.flatten().double()
        name = name_in_file(name, is_text_encoder)
        found[prefix + name] = {
            "norm": flat.norm().item(),
            "product": (flat * formula(flat.shape, PROJECTION).double()).sum().item(),
            "numbers": [flat[i].item() for i in (0, len(flat) // 2, len(flat) - 1)],
        }
    return found


def unet_case(index, name):
    config, size, encoder = UNETS[name]
    config = {**BASE, **config}
    net = fill(UNet2DConditionModel(**config))
    sample = 4 * formula((2, config["in_channels"], *size), INPUT + index)
    timesteps = torch.tensor([(37 * index + 5) % 1000, (411 * index + 999) % 1000])
    case = {"config": plain(config), "size": size, "timesteps": timesteps.tolist(), "encoder": encoder}
    if encoder:
        before = text_encoder(encoder)
        ids = tokens(encoder, index)
        text = before(ids).last_hidden_state
        case["tokens"] = ids.tolist()
    else:
        text = 4 * formula((2, 7, config["cross_attention_dim"]), TEXT + index)
        case["text"] = [7, config["cross_attention_dim"]]
    y = net(sample, timesteps, text).sample
    if encoder:
        (y * formula(y.shape, GRADIENT + index)).sum().backward()
        case["gradients"] = gradients(net, "unet.") | gradients(before, "text_encoder.", True)
    return case, {f"unet.{name}": y.detach()}


def text_encoder_case(index, name):
    ids = tokens(name, index)
    return ({"config": TEXT_ENCODERS[name], "tokens": ids.tolist()},
            {f"text_encoder.{name}": text_encoder(name)(ids).last_hidden_state.detach()})


def autoencoder_case(index, name):
    config, size = AUTOENCODERS[name]
    net = fill(AutoencoderKL(**config))
    image = 2 * formula((2, net.config.in_channels, *size), INPUT + index)
    with torch.no_grad():
        moments = net.encode(image).latent_dist.parameters
        mean = moments.chunk(2, dim=1)[0]
        latents = 4 * formula(mean.shape, INPUT + 100 + index)
        decoded = net.decode(latents).sample
    return {"config": plain(config), "size": size}, {f"vae.{name}.moments": moments, f"vae.{name}.image": decoded}


def tiny_autoencoder_case(index, name):
    config, size = TINY_AUTOENCODERS[name]
    net = fill(AutoencoderTiny(**config))
    image = 2 * formula((2, net.config.in_channels, *size), INPUT + index)
    with torch.no_grad():
        encoded = net.encode(image).latents
        latents = 8 * formula(encoded.shape, INPUT + 100 + index)  # beyond the 3 that they are drawn into
        decoded = net.decode(latents).sample
    return {"config": plain(config), "size": size}, {f"tiny_vae.{name}.latents": encoded, f"tiny_vae.{name}.image": decoded}


def tensors_of(kind, config):
    """[tensors, parameters, names and shapes], without the memory."""
    with torch.device("meta"):
        if kind == "text_encoder":
            net = make_text_encoder(config)
        else:
            net = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "tiny_vae": AutoencoderTiny}[kind](**config)
    found = {name_in_file(n, kind == "text_encoder"): list(p.shape) for n, p in net.named_parameters()}
    text = "\n".join(f"{n} {found[n]}" for n in sorted(found)) + "\n"
    return {"config": plain(config), "tensors": len(found), "parameters": sum(int(np.prod(s)) for s in found.values()),
            "names_and_shapes_sha256": hashlib.sha256(text.encode()).hexdigest()}


def main():
    golden, tensors = {}, {}
    for kind, cases, make in (("text_encoder", TEXT_ENCODERS, text_encoder_case), ("unet", UNETS, unet_case),
                              ("vae", AUTOENCODERS, autoencoder_case),
                              ("tiny_vae", TINY_AUTOENCODERS, tiny_autoencoder_case)):
        golden[kind] = {}
        for index, name in enumerate(cases):
            golden[kind][name], made = make(index, name)
            golden[kind][name]["index"] = index
            tensors |= {k: t.contiguous() for k, t in made.items()}
    golden["in_use"] = {kind: {name: tensors_of(kind, c) for name, c in nets.items()} for kind, nets in IN_USE.items()}
    text = json.dumps(golden, indent=0).replace(",\n", ", ").replace("[\n", "[").replace("\n]", "]").replace("{\n", "{")
    (HERE / "text_to_image.json").write_text(text.replace("\n}", "}").replace("}, ", "},\n") + "\n")
    save_file(tensors, HERE / "text_to_image.safetensors")
    for kind, nets in golden["in_use"].items():
        print(kind, {name: (n["tensors"], n["parameters"]) for name, n in nets.items()})
    print({k: (list(t.shape), round(t.abs().max().item(), 3)) for k, t in tensors.items()})


if __name__ == "__main__":
    main()
