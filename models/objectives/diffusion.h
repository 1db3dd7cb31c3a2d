// SPDX-License-Identifier: Apache-2.0
// To tell noise from image in images noised by a step drawn for each sample (Ho, Jain, Abbeel: "Denoising
// diffusion probabilistic models", 2020; kernels/diffusion/).
#pragma once

#include "models/denoiser.h"
#include "runtime/training/config.h"
#include "runtime/training/objective.h"

namespace lockstep::diffusion {

// A batch brings kImages and kLabels.
std::shared_ptr<const Objective> objective(Denoiser network, InputShape input, const DiffusionConfig& config);
inline constexpr std::string_view kDenoise = "denoise";
// The program kDenoise: kImages f32 [N, C, H, W], kTimesteps f32 [N], kLabels i32 [N] -> prediction f32
// [N, C, H, W].
Program denoise_program(Denoiser network, InputShape input, const DiffusionConfig& config);

}  // namespace lockstep::diffusion
