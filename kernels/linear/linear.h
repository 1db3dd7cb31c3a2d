// SPDX-License-Identifier: Apache-2.0
// Matrix product with bias, as PyTorch's Linear.
//
//   y[n, m] = act(b[m] + sum over k of x[n, k] * w[m, k])
//
// Ops                      inputs            outputs
//   linear                 x, w[, b]         y
//   linear_input_grad      dy, w             dx
//   linear_weight_grad     x, dy             dw[, db]
// Of features x, dx: [N, ...] with K = product of the dimensions after the first, in PyTorch's flattening order
// (so a convolution's [N, C, H, W] output is taken as it is, in plain or lanes layout; not nhwc);
// w, dw [M, K] plain; b, db [M]; y, dy [N, M] in x's layout.
// Of tokens, each by itself: x, dx [N, T, K]; y, dy [N, T, M], whose three dimensions say so. The fast kernels
// of tokens are plain.
// The gradients are those without the activation. dw and db are sums over this rank's samples (and tokens).
#pragma once

#include <fmt/format.h>

#include <string>

#include "kernels/core/activation.h"
#include "kernels/core/tensor.h"

namespace lockstep {

struct LinearParams {
  Activation activation = Activation::none;
  std::string text() const { return fmt::format("act={}", name(activation)); }
};

}  // namespace lockstep
