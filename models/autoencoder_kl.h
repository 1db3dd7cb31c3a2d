// SPDX-License-Identifier: Apache-2.0
// The autoencoder of latent diffusion, diffusers' AutoencoderKL (version 0.42): its tensor names, defaults
// and arithmetic, so that weights go both ways. Source: Rombach et al.: "High-resolution image synthesis with
// latent diffusion models" (arXiv 2112.10752).
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "models/spec.h"
#include "runtime/graph/program.h"

namespace lockstep {

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
