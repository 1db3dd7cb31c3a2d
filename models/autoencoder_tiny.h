// SPDX-License-Identifier: Apache-2.0
// The small autoencoder that stands for Stable Diffusion's, diffusers' AutoencoderTiny (version 0.42), known as TAESD: its
// tensor names, defaults and arithmetic, so that weights go both ways. Convolutions and ReLU alone, with no posterior: an
// image has one latent. Source: https://github.com/madebyollin/taesd.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "runtime/graph/program.h"

namespace lockstep {

// Under diffusers' own names, with its defaults.
struct AutoencoderTinyConfig {
  int64_t in_channels = 3, out_channels = 3;
  // Of each level, outermost first in the encoder and last in the decoder. No layer changes the channels between levels:
  // all of a list are equal.
  std::vector<int64_t> encoder_block_out_channels = {64, 64, 64, 64};
  std::vector<int64_t> decoder_block_out_channels = {64, 64, 64, 64};
  std::vector<int64_t> num_encoder_blocks = {1, 3, 3, 3};  // residual blocks of each level
  std::vector<int64_t> num_decoder_blocks = {3, 3, 3, 1};
  std::string act_fn = "relu";  // or silu, swish (the same), gelu: within blocks, which end with ReLU
  int64_t latent_channels = 4;
  double scaling_factor = 1;  // latents times this have a deviation of about 1

  // So many pixels of the image, each way, are one of the latents.
  int64_t scale() const { return int64_t{1} << (num_encoder_blocks.size() - 1); }
};

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
