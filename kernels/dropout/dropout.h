// SPDX-License-Identifier: Apache-2.0
// Dropout with a counter-based mask (Srivastava et al., JMLR 2014; inverted scaling as PyTorch's).
//
// Op         inputs          outputs
//   dropout  x, step_state   y
// y = keep ? x / (1 - p) : 0. keep = uniform01(draw) >= p; the draw for element e (row-major over the
// dimensions after the first, in logical order, whatever the layout) of local sample n is word e%4 of
// random4(seed, stream::kDropout + layer, step, first_sample + n, e/4) (philox.h, StepState).
// channelwise (Dropout2d): e is the channel index, one draw for a whole channel.
// The gradient is the same op applied to dy: the mask is drawn again, not stored. y may be x's buffer.
// Padding lanes of the lanes layout: written as 0.  p in [0, 1]; p = 1 gives all zeros.
// The op is not emitted for evaluation graphs.
#pragma once

#include <fmt/format.h>

#include <string>

namespace lockstep {

struct DropoutParams {
  float p = 0.5f;
  bool channelwise = false;
  uint32_t layer = 0;  // number of this dropout in the model
  std::string text() const { return fmt::format("p={} channelwise={} layer={}", p, channelwise, layer); }
};

}  // namespace lockstep
