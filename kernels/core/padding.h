// The lanes layout's padding lanes, for kernels that write outputs sample by sample.
#pragma once

#include "kernels/core/tensor.h"

namespace lockstep {

// Zeros the f32 padding lanes of a tensor; nothing in other layouts.
inline void zero_padding_lanes(const View& v) {
  if (v.spec.layout != Layout::lanes) return;
  const int64_t n = v.dim(0), used = n % kLanes, per = v.shape().elements_from(1);
  if (used == 0) return;
  float* block = v.as<float>() + n / kLanes * per * kLanes;
  for (int64_t i = 0; i < per; ++i)
    for (int64_t lane = used; lane < kLanes; ++lane) block[i * kLanes + lane] = 0;
}

}  // namespace lockstep
