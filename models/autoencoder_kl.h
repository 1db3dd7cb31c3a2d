// SPDX-License-Identifier: Apache-2.0
// The autoencoder of latent diffusion, diffusers' AutoencoderKL (version 0.42): its tensor names, defaults
// and arithmetic, so that weights go both ways. Source: Rombach et al.: "High-resolution image synthesis with
// latent diffusion models" (arXiv 2112.10752).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "runtime/graph/program.h"

namespace lockstep {

// Under diffusers' own names, with its defaults.
struct AutoencoderKlConfig {
  int64_t in_channels = 3, out_channels = 3;
  std::vector<std::string> down_block_types = {"DownEncoderBlock2D"};
  std::vector<std::string> up_block_types = {"UpDecoderBlock2D"};
  std::vector<int64_t> block_out_channels = {64};
  int64_t layers_per_block = 1;  // resnets of an encoder's block; a decoder's has one more
  std::string act_fn = "silu";   // or swish (the same), relu, gelu
  int64_t latent_channels = 4;
  int64_t norm_num_groups = 32;
  std::vector<int64_t> sample_size = {32};  // of images, one number or [height, width]: inputs may differ
  double scaling_factor = 0.18215;          // latents times this have a deviation of about 1
  bool mid_block_add_attention = true;

  // So many pixels of the image, each way, are one of the latents.
  int64_t scale() const { return int64_t{1} << (block_out_channels.size() - 1); }
};

// Throws Error(Exit::config, "E_VAE") naming the key and its values where the configuration is none that can
// be built.
void check(const AutoencoderKlConfig& config);
// The posterior's moments f32 [N, 2 * latent_channels, H / scale, W / scale], mean before logarithm of the
// variance, of an image in [-1, 1] f32 [N, in_channels, H, W].
ValueId encode(const AutoencoderKlConfig& config, ModelContext& context, ValueId image);
// The image f32 [N, out_channels, scale * h, scale * w] of latents f32 [N, latent_channels, h, w], which are
// not scaled: samples of the posterior.
ValueId decode(const AutoencoderKlConfig& config, ModelContext& context, ValueId latents);
// vae/config.json, as diffusers reads it.
nlohmann::ordered_json to_json(const AutoencoderKlConfig& config);

}  // namespace lockstep
