// SPDX-License-Identifier: Apache-2.0
// The diffusion UNet that text conditions, diffusers' UNet2DConditionModel (version 0.42): its tensor names,
// defaults and arithmetic, so that weights go both ways. Source: Rombach et al.: "High-resolution image
// synthesis with latent diffusion models" (arXiv 2112.10752).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "models/denoiser.h"

namespace lockstep {

// Under diffusers' own names, with its defaults. Lists of numbers have one for each level, from the full size
// down, or one for all. Left out there and here: classes, additional embeddings (SDXL), time conditions
// (LCM), other kinds of blocks and attention.
struct UNet2DConditionConfig {
  std::vector<int64_t> sample_size;  // [height, width], or one number for both: a default, inputs may differ
  int64_t in_channels = 4, out_channels = 4;
  bool center_input_sample = false;  // the input is 2x - 1
  bool flip_sin_to_cos = true;
  double freq_shift = 0;
  std::vector<std::string> down_block_types = {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
                                               "CrossAttnDownBlock2D", "DownBlock2D"};
  std::optional<std::string> mid_block_type = "UNetMidBlock2DCrossAttn";  // none: no mid block
  std::vector<std::string> up_block_types = {"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D",
                                             "CrossAttnUpBlock2D"};
  std::vector<int64_t> block_out_channels = {320, 640, 1280, 1280};
  std::vector<int64_t> layers_per_block = {2};
  int64_t downsample_padding = 1;  // 0: one row below and one column to the right
  double mid_block_scale_factor = 1;
  double dropout = 0;           // of the resnets
  std::string act_fn = "silu";  // or swish (the same), relu, gelu
  int64_t norm_num_groups = 32;
  double norm_eps = 1e-5;
  int64_t cross_attention_dim = 1280;  // width of the text's tokens
  std::vector<int64_t> transformer_layers_per_block = {1};
  std::vector<int64_t> attention_head_dim = {8};    // the number of heads, whatever its name says
  bool use_linear_projection = false;               // the shape of proj_in's and proj_out's weights
  bool upcast_attention = false;                    // scores are sums in f32 either way
  std::string resnet_time_scale_shift = "default";  // or scale_shift
  std::optional<int64_t> time_embedding_dim;        // none: 4 * block_out_channels[0]
};

// Throws Error(Exit::config, "E_UNET") naming the key and its values where the configuration is none that can
// be built.
void check(const UNet2DConditionConfig& config);
// Predicts [N, out_channels, H, W] from a noisy sample [N, in_channels, H, W] of any size, timesteps f32 [N]
// and text f32 [N, T, cross_attention_dim].
Denoiser make_unet2d_condition(const UNet2DConditionConfig& config);
// unet/config.json, as diffusers reads it.
nlohmann::ordered_json to_json(const UNet2DConditionConfig& config);

}  // namespace lockstep
