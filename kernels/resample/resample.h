// SPDX-License-Identifier: Apache-2.0
// Nearest-neighbour upsampling by whole factors, as PyTorch's Upsample(scale_factor=..., mode="nearest").
//
// Op                              inputs    outputs
//   upsample_nearest2d            x         y
//   upsample_nearest2d_grad       dy        dx
// y[n, c, p, q] = x[n, c, p / scale_h, q / scale_w]; dx sums the scale_h x scale_w pixels that have a pixel's
// value, row by row, in float.
// x, dx [N, C, H, W]; y, dy [N, C, H*scale_h, W*scale_w] in x's layout and dtype. Factors >= 1.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>

namespace lockstep {

struct UpsampleNearest2dParams {
  int64_t scale_h = 2, scale_w = 2;
  std::string text() const { return fmt::format("scale={},{}", scale_h, scale_w); }
};

}  // namespace lockstep
