// SPDX-License-Identifier: Apache-2.0
// This room's kernels, one function a file; register.cpp calls them.
#pragma once

#include <vector>

#include "kernels/core/kernel.h"
#include "kernels/diffusion/noise.h"

namespace lockstep::diffusion {

// What one timestep does: x_t = signal x0 + noise eps.
struct NoiseRow {
  float signal, noise, weight;
};
// By timestep; computed in double. Asserts that the schedule is one.
std::vector<NoiseRow> noise_rows(const DiffusionNoiseParams&);
// The weight of a sample whose alphas_cumprod is ac.
double loss_weight(const DiffusionNoiseParams&, double ac);

void register_noise_highway(Registry&);
void register_noise_reference(Registry&);
void register_weighted_mse_highway(Registry&);
void register_weighted_mse_reference(Registry&);
void register_label_dropout(Registry&);
void register_posterior(Registry&);

}  // namespace lockstep::diffusion
