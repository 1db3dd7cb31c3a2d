// SPDX-License-Identifier: Apache-2.0
// From stored pixels to network input.
//
// Op                 inputs              outputs
//   image_normalize  x [N, C, H, W] u8   y f32 = (x / 255 - mean[c]) / std[c], any layout
// x is plain. Computed as x * scale[c] + offset[c] with scale = 1/(255 std), offset = -mean/std.
// Padding lanes: written as 0.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>
#include <vector>

namespace lockstep {

struct ImageNormalizeParams {
  std::vector<float> mean, std;  // one per channel
  std::string text() const {
    return fmt::format("mean={} std={}", fmt::join(mean, ","), fmt::join(std, ","));
  }
};

}  // namespace lockstep
