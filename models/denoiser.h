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
};

// What makes an image [N, C, scale * h, scale * w] of what the denoiser draws, [N, channels, h, w].
struct ImageDecoder {
  // Adds the network's nodes. Latents are scaled as the denoiser has them.
  std::function<ValueId(ModelContext&, ValueId latents)> network;
  int64_t channels = 0, scale = 1;
};

struct DiffusionNetworks {
  Denoiser denoiser;
  std::optional<TextEncoder> text_encoder;  // of a model that draws what a text says; then the networks are
                                            // called kUNet and kTextEncoder, else the model is one network
  std::optional<ImageDecoder> decoder;      // of one that draws latents: the network kVae
};
inline constexpr const char* kUNet = "unet";
inline constexpr const char* kTextEncoder = "text_encoder";
inline constexpr const char* kVae = "vae";

}  // namespace lockstep
