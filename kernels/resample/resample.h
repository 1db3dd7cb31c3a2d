// SPDX-License-Identifier: Apache-2.0
// Nearest-neighbour upsampling to a size, as PyTorch's Upsample(mode="nearest").
//
// Op                              inputs    outputs
//   upsample_nearest2d            x         y
//   upsample_nearest2d_grad       dy        dx
// y[n, c, p, q] = x[n, c, floor(p H / P), floor(q W / Q)]; dx sums the pixels that have a pixel's value, row by
// row, in float.
// x, dx [N, C, H, W]; y, dy [N, C, P, Q] in x's layout and dtype. P >= H >= 1, Q >= W >= 1.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>

namespace lockstep {

struct UpsampleNearest2dParams {
  int64_t height = 1, width = 1;  // P, Q
  std::string text() const { return fmt::format("size={},{}", height, width); }
};

}  // namespace lockstep
