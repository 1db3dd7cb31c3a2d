// SPDX-License-Identifier: Apache-2.0
// 2-D cross-correlation, as PyTorch's Conv2d
// (https://pytorch.org/docs/stable/generated/torch.nn.Conv2d.html).
//
//   y[n, o, p, q] = act(b[o] + sum over c, r, s of
//                       x[n, g(o)*C/groups + c, p*stride_h - pad_top + r*dilation_h,
//                               q*stride_w - pad_left + s*dilation_w] * w[o, c, r, s])
// x outside its bounds counts as 0; g(o) = o / (O/groups).
//
// Ops                      inputs                      outputs
//   conv2d                 x, w[, b]                   y
//   conv2d_input_grad      dy, w                       dx
//   conv2d_weight_grad     x, dy                       dw[, db]
// x, dx [N, C, H, W]; w, dw [O, C/groups, KH, KW] plain; b, db [O]; y, dy [N, O, P, Q].
// x, y, dx, dy share one layout. The gradients are those of the convolution without the activation
// (`activation` must be none there). dw and db are sums over this rank's samples.
// Errors: none at run time; shapes are checked when the graph is built (output_shape throws).
#pragma once

#include <fmt/format.h>

#include <string>

#include "kernels/core/activation.h"
#include "kernels/core/tensor.h"

namespace lockstep {

struct Conv2dParams {
  int64_t stride_h = 1, stride_w = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  int64_t dilation_h = 1, dilation_w = 1;
  int64_t groups = 1;
  Activation activation = Activation::none;

  std::string text() const {
    return fmt::format("stride={},{} pad={},{},{},{} dilation={},{} groups={} act={}", stride_h, stride_w,
                       pad_top, pad_left, pad_bottom, pad_right, dilation_h, dilation_w, groups,
                       name(activation));
  }
  // Output height or width; may be <= 0 where the kernel doesn't fit.
  int64_t out_h(int64_t h, int64_t kh) const {
    const int64_t room = h + pad_top + pad_bottom - dilation_h * (kh - 1) - 1;
    return room < 0 ? 0 : room / stride_h + 1;
  }
  int64_t out_w(int64_t w, int64_t kw) const {
    const int64_t room = w + pad_left + pad_right - dilation_w * (kw - 1) - 1;
    return room < 0 ? 0 : room / stride_w + 1;
  }
};

}  // namespace lockstep
