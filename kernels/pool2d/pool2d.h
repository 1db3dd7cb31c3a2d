// SPDX-License-Identifier: Apache-2.0
// Max and average pooling over windows, as PyTorch's MaxPool2d, AvgPool2d, AdaptiveAvgPool2d.
//
// Ops                      inputs        outputs
//   max_pool2d             x             y, index
//   max_pool2d_grad        dy, index     dx
//   avg_pool2d             x             y
//   avg_pool2d_grad        dy            dx
// x, dx [N, C, H, W]; y, dy [N, C, P, Q]; index [N, C, P, Q] u8: the position r*KW + s of the
// maximum in its window (the first one in row-major order; a NaN counts as the largest, as in
// PyTorch), so KH*KW <= 256. All share one layout. Padding is at most half the window and never wins
// a maximum. Overlapping windows add up in dx.
// Max with activation relu: y = relu(maximum), and where that is no maximum above zero index is kNoMaximum, so that the
// gradient, which has the same parameters, goes nowhere. Then KH*KW < 256.
// Average: divisor KH*KW where count_include_pad, else the window's part inside the image (the
// part inside the padded image counts when include, as PyTorch's).
// Adaptive (avg only): window i covers [floor(i*H/P), ceil((i+1)*H/P)); kernel, stride and padding
// are then unused and out_h/out_w give P, Q.
#pragma once

#include <fmt/format.h>

#include <string>

#include "kernels/core/activation.h"
#include "kernels/core/tensor.h"

namespace lockstep {

struct Pool2dParams {
  int64_t kernel_h = 1, kernel_w = 1;
  int64_t stride_h = 1, stride_w = 1;
  int64_t pad_h = 0, pad_w = 0;
  int64_t dilation_h = 1, dilation_w = 1;  // max only
  bool ceil_mode = false;
  bool count_include_pad = true;  // avg only
  bool adaptive = false;          // avg only
  int64_t adaptive_h = 1, adaptive_w = 1;
  Activation activation = Activation::none;  // max only: none or relu

  static constexpr uint8_t kNoMaximum = 255;

  bool relu() const { return activation == Activation::relu; }
  std::string text() const {
    return adaptive
               ? fmt::format("adaptive={},{}", adaptive_h, adaptive_w)
               : fmt::format("kernel={},{} stride={},{} pad={},{} dilation={},{} ceil={} include_pad={}{}",
                             kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
                             ceil_mode, count_include_pad, relu() ? " act=relu" : "");
  }
  int64_t out_h(int64_t h) const { return out(h, kernel_h, stride_h, pad_h, dilation_h, adaptive_h); }
  int64_t out_w(int64_t w) const { return out(w, kernel_w, stride_w, pad_w, dilation_w, adaptive_w); }

 private:
  // <= 0 where the window doesn't fit. In ceil mode a last window that would start in the right
  // padding is dropped, as PyTorch does.
  int64_t out(int64_t n, int64_t k, int64_t stride, int64_t pad, int64_t dilation, int64_t a) const {
    if (adaptive) return a;
    const int64_t room = n + 2 * pad - dilation * (k - 1) - 1;
    if (room < 0) return 0;
    int64_t o = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
    if (ceil_mode && (o - 1) * stride >= n + pad) --o;
    return o;
  }
};

}  // namespace lockstep
