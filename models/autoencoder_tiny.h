// SPDX-License-Identifier: Apache-2.0
// The small autoencoder that stands for Stable Diffusion's, diffusers' AutoencoderTiny (version 0.42), known as TAESD: its
// tensor names, defaults and arithmetic, so that weights go both ways. Convolutions and ReLU alone, with no posterior: an
// image has one latent. Source: https://github.com/madebyollin/taesd.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "models/spec.h"
#include "runtime/graph/program.h"

namespace lockstep {

// Throws Error(Exit::config, "E_VAE") naming the key and its values where the configuration is none that can
// be built.
void check(const AutoencoderTinyConfig& config);
// The latents f32 [N, latent_channels, H / scale, W / scale], rounded up, of an image in [-1, 1]
// f32 [N, in_channels, H, W].
ValueId encode(const AutoencoderTinyConfig& config, ModelContext& context, ValueId image);
// The image f32 [N, out_channels, scale * h, scale * w] of latents f32 [N, latent_channels, h, w], which are not
// scaled. They are drawn into (-3, 3) first: 3 tanh(x / 3). The image is not clamped to [-1, 1].
ValueId decode(const AutoencoderTinyConfig& config, ModelContext& context, ValueId latents);
// vae/config.json, as diffusers reads it.
nlohmann::ordered_json to_json(const AutoencoderTinyConfig& config);

}  // namespace lockstep
