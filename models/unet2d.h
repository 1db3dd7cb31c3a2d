// SPDX-License-Identifier: Apache-2.0
// The diffusion UNet of diffusers (UNet2DModel, version 0.42): its tensor names and arithmetic, so that
// weights go both ways. Source: Ho, Jain, Abbeel: "Denoising diffusion probabilistic models" (arXiv
// 2006.11239).
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "models/denoiser.h"
#include "models/spec.h"

namespace lockstep {

// Throws Error(Exit::config, "E_UNET") naming the key and its values where the configuration is none that can
// be built. Whether an image's size fits is known when the graph is built.
void check(const UNet2DConfig& config);
// Predicts [N, out_channels, H, W] from a noisy image [N, in_channels, H, W], its timesteps and, where the
// model is conditional, its labels.
Denoiser make_unet2d(const UNet2DConfig& config);
// unet/config.json, as diffusers writes it.
nlohmann::ordered_json to_json(const UNet2DConfig& config);

}  // namespace lockstep
