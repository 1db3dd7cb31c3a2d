// SPDX-License-Identifier: Apache-2.0
// Layer normalisation over the last dimension (Ba, Kiros, Hinton: arXiv 1607.06450), as PyTorch's
// LayerNorm(C).
//
// Op                     inputs                        outputs
//   layer_norm           x, gamma, beta                y, stats
//   layer_norm_grad      x, dy, gamma, stats           dx, dgamma, dbeta
// x, y, dx, dy [N, ..., C]; gamma, beta, dgamma, dbeta [C]; stats [N, ..., 2]: each row's mean, and
// 1/sqrt(biased variance + eps), f32 always. Variance in two passes. dgamma and dbeta are sums over this rank's
// samples. The fast kernels are plain. y may be x's buffer, dx may be dy's.
#pragma once

#include <fmt/format.h>

#include <string>

namespace lockstep {

struct LayerNormParams {
  float eps = 1e-5f;
  std::string text() const { return fmt::format("eps={}", eps); }
};

}  // namespace lockstep
