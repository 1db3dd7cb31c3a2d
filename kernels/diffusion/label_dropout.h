// SPDX-License-Identifier: Apache-2.0
// Label dropout, for classifier-free guidance (Ho, Salimans: arXiv 2207.12598, algorithm 1): now and then a
// sample's class is replaced by the one that means 'no class', so that one model learns both.
//
// Op                 inputs                outputs
//   label_dropout    labels, step_state    out
// labels, out [N] i32 plain. out = uniform01(w) < p ? null_label : labels[n], w the first word of
// random4(seed, stream::kLabelDropout, step, first_sample + n, 0) (philox.h, StepState): the same on any
// number of ranks. p in [0, 1]. No gradient. The op is not emitted for evaluation
// graphs.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>

namespace lockstep {

struct LabelDropoutParams {
  float p = 0.1f;
  int32_t null_label = 0;
  std::string text() const { return fmt::format("p={} null={}", p, null_label); }
};

}  // namespace lockstep
