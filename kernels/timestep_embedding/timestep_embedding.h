// SPDX-License-Identifier: Apache-2.0
// Sinusoidal embedding of diffusion timesteps, as diffusers' get_timestep_embedding (Vaswani et al.:
// arXiv 1706.03762, section 3.5, with other frequencies).
//
// Op                       inputs       outputs
//   timestep_embedding     timesteps    y
// timesteps [N] of i32 or f32, plain; y [N, dim] of f32 or bf16. With half = dim / 2 > freq_shift, i < half:
//   frequency_i = exp(-ln(max_period) * i / (half - freq_shift)), angle = scale * (t_n * frequency_i)
//   y[n, i] = sin(angle), y[n, half + i] = cos(angle); flip_sin_to_cos: the halves swapped
// An odd dim's last column is 0. Frequencies and angles are rounded to f32, as PyTorch has them: at angles
// around 1000 that rounding, 3e-5, is larger than what sine and cosine add to it. No gradient.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>

namespace lockstep {

struct TimestepEmbeddingParams {
  int64_t dim = 0;
  bool flip_sin_to_cos = false;
  double freq_shift = 1;
  double scale = 1;
  double max_period = 10000;
  std::string text() const {
    return fmt::format("dim={} flip={} shift={} scale={} period={}", dim, flip_sin_to_cos, freq_shift, scale,
                       max_period);
  }
};

}  // namespace lockstep
