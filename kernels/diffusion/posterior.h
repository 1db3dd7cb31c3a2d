// SPDX-License-Identifier: Apache-2.0
// A sample of a variational autoencoder's posterior, a normal distribution for each element of a latent (Kingma, Welling:
// arXiv 1312.6114, section 3; diffusers' DiagonalGaussianDistribution), times a factor.
//
// Op                  inputs                 outputs
//   posterior_sample  moments, step_state    latents
// moments [N, 2C, ...] f32: the means, then the logarithms of the variances; latents [N, C, ...] f32 of the same layout
// (any):
//   latents = scale (mean + exp(clamp(log_variance, -30, 20) / 2) eps)
// eps: standard normal, by sample and element in logical (row-major) order: number e % 4 of normal4(random4(seed,
// stream::kPosterior, step, first_sample + n, e / 4)) (philox.h, normal.h, StepState): the same on any number of ranks.
// Padding lanes: 0. The moments are data, a frozen network's: no gradient.
#pragma once

#include <fmt/format.h>

#include <string>

namespace lockstep {

struct PosteriorParams {
  float scale = 1;
  std::string text() const { return fmt::format("scale={}", scale); }
};

}  // namespace lockstep
