// SPDX-License-Identifier: Apache-2.0
// Group normalisation (Wu, He: arXiv 1803.08494), as PyTorch's GroupNorm.
//
// Op                     inputs                              outputs
//   group_norm           x, gamma, beta                      y, stats
//   group_norm_grad      x, dy, gamma, beta, stats           dx, dgamma, dbeta
// x, y, dx, dy [N, C, ...] in one layout; gamma, beta [C]; stats [N, 2*groups] in x's layout where that is
// lanes, else plain: mean of group g at g, 1/sqrt(biased variance + eps) at groups + g. dgamma and dbeta are
// sums over this rank's samples. Statistics in two passes or Welford; f32 results. C divisible by groups.
// activation: none, or silu on y; the gradient is then that of both, and computes what went into the SiLU
// again from x and stats.
#pragma once

#include <fmt/format.h>

#include <string>

#include "kernels/core/activation.h"

namespace lockstep {

struct GroupNormParams {
  int64_t groups = 1;
  float eps = 1e-5f;
  Activation activation = Activation::none;
  std::string text() const { return fmt::format("groups={} eps={} act={}", groups, eps, name(activation)); }
};

}  // namespace lockstep
