// SPDX-License-Identifier: Apache-2.0
// The network of a diffusion model.
#pragma once

#include <functional>

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

}  // namespace lockstep
