// SPDX-License-Identifier: Apache-2.0
// The lanes layout's padding lanes, for kernels that write outputs sample by sample.
#pragma once

#include <cstddef>
#include <cstring>

#include "kernels/core/tensor.h"

namespace lockstep {

// Writes zeros into the lanes past the last sample; nothing in other layouts.
inline void zero_padding_lanes(const View& v) {
  const int64_t used = v.spec.layout == Layout::lanes ? v.dim(0) % kLanes : 0;
  if (used == 0) return;
  const auto size = static_cast<size_t>(size_of(v.spec.dtype));
  const int64_t inner = v.shape().elements_from(1), block = v.dim(0) / kLanes;
  for (int64_t i = 0; i < inner; ++i) {
    const auto first = static_cast<size_t>((block * inner + i) * kLanes + used);
    std::memset(v.as<std::byte>() + first * size, 0, static_cast<size_t>(kLanes - used) * size);
  }
}

}  // namespace lockstep
