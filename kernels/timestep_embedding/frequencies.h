// SPDX-License-Identifier: Apache-2.0
// The frequencies of timestep_embedding, rounded to f32 step by step as PyTorch has them.
#pragma once

#include <cmath>
#include <vector>

#include "kernels/timestep_embedding/timestep_embedding.h"

namespace lockstep {

inline std::vector<float> timestep_frequencies(const TimestepEmbeddingParams& p) {
  const int64_t half = p.dim / 2;
  const auto rate = static_cast<float>(-std::log(p.max_period));
  const auto divisor = static_cast<float>(static_cast<double>(half) - p.freq_shift);
  std::vector<float> frequencies;
  for (int64_t i = 0; i < half; ++i)
    frequencies.push_back(static_cast<float>(std::exp(double{rate * static_cast<float>(i) / divisor})));
  return frequencies;
}

}  // namespace lockstep
