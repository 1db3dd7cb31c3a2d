// SPDX-License-Identifier: Apache-2.0
// The networks of a diffusion model.
#pragma once

#include <functional>
#include <optional>

#include "runtime/graph/program.h"

namespace lockstep {

struct DenoiserInputs {
  ValueId sample = kNoValue;     // noisy, f32 [N, C, H, W]
  ValueId timesteps = kNoValue;  // f32 or i32 [N]
  ValueId labels = kNoValue;     // i32 [N]; of a network that knows classes
  int64_t label_values = 0;      // labels are below that
  ValueId text = kNoValue;       // f32 [N, T, W]; of a network that reads text
};
// Adds the network's nodes; returns its prediction, shaped as the sample.
using Denoiser = std::function<ValueId(ModelContext&, const DenoiserInputs&)>;

// A text as vectors, one a token.
struct TextEncoder {
  // Adds the network's nodes: tokens i32 [N, T] -> f32 [N, T, width].
  std::function<ValueId(ModelContext&, ValueId tokens)> network;
  int64_t length = 0;  // T: tokens of a text
  int64_t width = 0;
  bool frozen = false;  // while the others are trained
};

// What makes of an image [N, C, scale * h, scale * w] in [-1, 1] the distribution of its latents, which the denoiser is
// trained on. Frozen.
struct ImageEncoder {
  // Adds the network's nodes: the posterior's moments f32 [N, 2 * channels, h, w] (kernels/diffusion/posterior.h).
  std::function<ValueId(ModelContext&, ValueId image)> network;
  int64_t channels = 0, scale = 1;
  double scaling_factor = 1;  // from the posterior's samples to the latents that the denoiser has
};

// What makes an image [N, C, scale * h, scale * w] of what the denoiser draws, [N, channels, h, w].
struct ImageDecoder {
  // Adds the network's nodes. Latents are scaled as the denoiser has them.
  std::function<ValueId(ModelContext&, ValueId latents)> network;
  int64_t channels = 0, scale = 1;
};

struct DiffusionNetworks {
  Denoiser denoiser;
  std::optional<TextEncoder> text_encoder;   // of a model that draws what a text says; then the networks are
                                             // called kUNet and kTextEncoder, else the model is one network
  std::optional<ImageDecoder> decoder;       // of one that draws latents: the network kVae
  std::optional<ImageEncoder> encoder = {};  // the same network's other half, where training needs it
};
inline constexpr const char* kUNet = "unet";
inline constexpr const char* kTextEncoder = "text_encoder";
inline constexpr const char* kVae = "vae";

}  // namespace lockstep
