// SPDX-License-Identifier: Apache-2.0
// The noise schedule of a diffusion process (Ho, Jain, Abbeel: "Denoising diffusion probabilistic models",
// 2020):
//   x_t = sqrt(alphas_cumprod[t]) x_0 + sqrt(1 - alphas_cumprod[t]) noise,   t = 0 .. num_train_timesteps - 1
// Field and value names are diffusers' (scheduler_config.json).
//
// The arithmetic is diffusers' too: betas and alphas are float32, and their running product is taken in
// double and stored as float32. With double throughout, 1 - alphas_cumprod at the least noisy timesteps (1e-4
// at t = 0, where one float32 step of alphas_cumprod is 6e-8) would differ by up to 6e-4 of itself, and
// samples by more than 1e-5.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/training/config.h"

namespace lockstep::diffusion {

struct ScheduleConfig {
  int64_t num_train_timesteps = 1000;
  std::string beta_schedule = "linear";  // linear, scaled_linear, squaredcos_cap_v2, sigmoid
  double beta_start = 0.0001, beta_end = 0.02;
  std::vector<float> trained_betas;  // if any: the betas, one a timestep, whatever beta_schedule says
  // Lin et al., "Common diffusion noise schedules and sample steps are flawed" (2023), algorithm 1: the last
  // timestep is noise alone. An epsilon prediction has nothing to say there and is refused.
  bool rescale_betas_zero_snr = false;
  // What the model predicts: epsilon (the noise), sample (x_0), or v_prediction (Salimans, Ho: "Progressive
  // distillation", 2022: sqrt(alphas_cumprod) noise - sqrt(1 - alphas_cumprod) x_0).
  std::string prediction_type = "epsilon";
};

// Errors, both functions: config (78), naming keys and values, for unknown words and for betas outside [0,
// 1); only the last may be 1.
std::vector<float> make_betas(const ScheduleConfig& config);           // before rescaling
std::vector<float> make_alphas_cumprod(const ScheduleConfig& config);  // after it
// What a model of this schedule is trained on, every timestep counting alike.
DiffusionConfig training_objective(const ScheduleConfig& config);

}  // namespace lockstep::diffusion
