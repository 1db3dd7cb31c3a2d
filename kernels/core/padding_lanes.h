// The lanes past the last sample of a tensor in the lanes layout.
#pragma once

#include "kernels/core/tensor.h"

namespace lockstep {

// Writes 0 into the padding lanes; nothing in other layouts or where the batch fills its blocks.
inline void zero_padding_lanes(const View& v) {
  if (v.spec.layout != Layout::lanes || v.dim(0) % kLanes == 0) return;
  const int64_t per = v.shape().elements_from(1), used = v.dim(0) % kLanes;
  float* block = v.as<float>() + v.dim(0) / kLanes * per * kLanes;
  for (int64_t i = 0; i < per; ++i)
    for (int64_t lane = used; lane < kLanes; ++lane) block[i * kLanes + lane] = 0;
}

}  // namespace lockstep
