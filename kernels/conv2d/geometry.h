// SPDX-License-Identifier: Apache-2.0
// Which inputs each output of a convolution (or each input of its gradient) gathers, without bounds checks:
// places whose window keeps the same taps form one class.
#pragma once

#include <vector>

#include "kernels/conv2d/conv2d.h"
#include "kernels/simd/gather_product.h"

namespace lockstep {

// Offsets count floats in a block of the lanes layout, one channel.
struct GatherClass {
  std::vector<int64_t> x_at, y_at;
  std::vector<GatherTap> taps;  // w: r*KW + s
};

struct ImageSize {
  int64_t h = 0, w = 0;
};

// y gathers x.
std::vector<GatherClass> forward_classes(const Conv2dParams&, ImageSize x, ImageSize y, ImageSize kernel);
// dx gathers dy: with stride s the taps that reach an input repeat every s places.
std::vector<GatherClass> input_grad_classes(const Conv2dParams&, ImageSize dx, ImageSize dy,
                                            ImageSize kernel);

}  // namespace lockstep
