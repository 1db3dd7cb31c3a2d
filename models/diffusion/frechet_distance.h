// SPDX-License-Identifier: Apache-2.0
// The Fréchet distance between two sets of vectors, each taken for a Gaussian: with a network's features for
// vectors, how far generated images lie from real ones (Heusel et al., 2017, "GANs Trained by a Two
// Time-Scale Update Rule Converge to a Local Nash Equilibrium", section 3).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lockstep::diffusion {

struct Gaussian {
  std::vector<double> mean;        // [width]
  std::vector<double> covariance;  // [width, width], symmetric, positive semi-definite
};

// Mean and unbiased covariance of `vectors` [count, width], count at least 2; in two passes, in double.
// Error diverged (80) where a vector is not finite.
Gaussian gaussian_of(std::span<const float> vectors, int64_t width);

// |mean a - mean b|² + trace(A + B - 2 (A B)^(1/2)) of covariances A and B, which may be singular. Squared,
// as is usual; at least 0 up to rounding. O(width³).
double frechet_distance(const Gaussian& a, const Gaussian& b);

}  // namespace lockstep::diffusion
