// SPDX-License-Identifier: Apache-2.0
// The forward process of a diffusion model (Ho, Jain, Abbeel: arXiv 2006.11239, equation 4) at a random
// timestep of each sample, what the model has to predict there, and how much the sample's loss weighs.
//
// Op                   inputs            outputs
//   diffusion_noise    x0, step_state    x_t, target, timesteps, weights
// x0 [N, C, ...] of f32 or bf16; x_t: of x0's dtype; target f32; both of x0's shape and layout. timesteps [N]
// i32 and weights [N] f32, plain. With T = alphas_cumprod.size(), ac = alphas_cumprod[t]:
//   t      uniform on 0..T-1, by sample: draw_timestep
//   eps    standard normal, by sample and element in logical (row-major) order, whatever the layout:
//   draw_noise x_t    = sqrt(ac) x0 + sqrt(1 - ac) eps target = eps (epsilon), x0 (sample), sqrt(ac) eps -
//   sqrt(1 - ac) x0 (v_prediction; Salimans, Ho: arXiv
//            2202.00512, appendix D)
//   weight = 1, or with min_snr_gamma = g > 0 (Hang et al.: arXiv 2303.09556; for epsilon and v as diffusers'
//   training
//            scripts have it), snr = ac / (1 - ac):
//            epsilon min(snr, g) / snr = min(1, g / snr), v_prediction min(snr, g) / (snr + 1), sample
//            min(snr, g); finite where ac is 0 (1, 0, 0) or 1 (0, 0, g)
// Samples are counted as StepState has it, first_sample + n, so that any number of ranks draws the same
// numbers. What the fast kernels write has the same bits on every processor and device. Padding lanes of x_t
// and target: 0. x0 is data: no gradient. alphas_cumprod: within [0, 1], not empty.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/random/philox.h"

namespace lockstep {

// What a diffusion model's output stands for.
enum class Prediction : uint8_t { epsilon, v_prediction, sample };
const char* name(Prediction);

struct DiffusionNoiseParams {
  std::vector<double> alphas_cumprod;  // by timestep
  Prediction prediction = Prediction::epsilon;
  double min_snr_gamma = 0;  // 0: every sample weighs 1
  std::string text() const;  // the schedule by its length and a hash
};

// The op's own numbers, bit for bit, for whoever adds noise or samples outside of it.
// out[e] = eps of element e of `sample` at `step`, e < elements: number e % 4 of
// normal4(random4(seed, stream::kNoise, step, sample, e / 4)) (philox.h, normal.h).
void draw_noise(uint64_t seed, int64_t step, int64_t sample, int64_t elements, float* out);
// floor(timesteps * w / 2^32), w the first word of random4(seed, stream::kTimestep, step, sample, 0).
LOCKSTEP_HOST_DEVICE inline int32_t draw_timestep(uint64_t seed, int64_t step, int64_t sample,
                                                  int64_t timesteps) {
  const uint64_t word = random4(seed, stream::kTimestep, step, sample, 0).x[0];
  return static_cast<int32_t>(word * static_cast<uint64_t>(timesteps) >> 32);
}

}  // namespace lockstep
