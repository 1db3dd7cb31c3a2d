// SPDX-License-Identifier: Apache-2.0
// Batch normalisation over the global batch (Ioffe, Szegedy: arXiv 1502.03167), cut at the points
// where ranks must meet. Channel c of x [N, C, H, W] (or [N, C]) is normalised over N, H, W of all ranks.
//
// Training, forward:
//   batch_norm_stats      x                        -> part [3, C]: count, mean, M2 = sum (x-mean)^2
//                         (count in every channel; two passes or Welford, never E[x^2]-mean^2;
//                          count 0, mean 0, M2 0 for a rank without samples)
//   (all_gather by the communicator)               -> parts [R, 3, C]
//   batch_norm_merge      parts                    -> stats [4, C]: count, mean, biased variance,
//                         1/sqrt(variance + eps).  Merged by Chan's formula in rank order, in double,
//                         so every rank gets the same bits.
//   batch_norm_running    stats, running_mean, running_var  -> running_mean, running_var (may be the
//                         inputs' buffers). r = (1-momentum) r + momentum * value, with
//                         the unbiased variance, which one value does not have: count 1 leaves
//                         running_var as it is, count 0 both.
//   batch_norm_apply      x, stats, gamma, beta [, r]
//                         -> y = a(z), z = gamma (x - mean) invstd + beta, or z = that + r
// Training, backward:
//   batch_norm_grad_sums  x, dy, stats [, gamma, beta]
//                         -> sums [2, C] over this rank's samples: sum dz (= dbeta), sum dz*xhat (= dgamma)
//   (allreduce by the communicator)                -> sums over all ranks
//   batch_norm_input_grad x, dy, stats, gamma, sums [, beta]
//                         -> dx = gamma invstd (dz - sums0/count - xhat sums1/count);
//                         padding lanes written as 0
//   dgamma and dbeta are rows 1 and 0 of the local sums (op batch_norm_affine_grad: sums -> dgamma, dbeta).
// Evaluation:
//   batch_norm_eval       x, running_mean, running_var, gamma, beta [, r] -> y, as batch_norm_apply
// All take BatchNormParams, whose activation a is relu or none. Backwards dz = dy, or with relu dy where z,
// made again from x, gamma and beta, is positive, else 0: a rank reads y no more. Where r was added, y says
// it, and dy comes as dz already.
// x, y, r, dy, dx share one layout and type (f32 or bf16), all else is f32; sums are carried in double or in
// pairwise/compensated f32 partials. gamma, beta, running_* are [C] plain.
#pragma once

#include <fmt/format.h>

#include <string>

#include "kernels/core/activation.h"

namespace lockstep {

struct BatchNormParams {
  float eps = 1e-5f;
  float momentum = 0.1f;
  Activation activation = Activation::none;
  std::string text() const {
    return fmt::format("eps={} momentum={}{}", eps, momentum,
                       activation == Activation::none ? "" : fmt::format(" activation={}", name(activation)));
  }
};

}  // namespace lockstep
