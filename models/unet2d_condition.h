// SPDX-License-Identifier: Apache-2.0
// The diffusion UNet that text conditions, diffusers' UNet2DConditionModel (version 0.42): its tensor names,
// defaults and arithmetic, so that weights go both ways. Source: Rombach et al.: "High-resolution image
// synthesis with latent diffusion models" (arXiv 2112.10752).
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "models/denoiser.h"
#include "models/spec.h"

namespace lockstep {

// Throws Error(Exit::config, "E_UNET") naming the key and its values where the configuration is none that can
// be built.
void check(const UNet2DConditionConfig& config);
// Predicts [N, out_channels, H, W] from a noisy sample [N, in_channels, H, W] of any size, timesteps f32 [N]
// and text f32 [N, T, cross_attention_dim].
Denoiser make_unet2d_condition(const UNet2DConditionConfig& config);
// unet/config.json, as diffusers reads it.
nlohmann::ordered_json to_json(const UNet2DConditionConfig& config);

}  // namespace lockstep
