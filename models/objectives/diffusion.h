// SPDX-License-Identifier: Apache-2.0
// To tell noise from image in images noised by a step drawn for each sample (Ho, Jain, Abbeel: "Denoising
// diffusion probabilistic models", 2020; kernels/diffusion/).
#pragma once

#include "models/denoiser.h"
#include "runtime/training/config.h"
#include "runtime/training/objective.h"

namespace lockstep::diffusion {

// A batch brings kImages and kLabels, or, where there is a text encoder, kTokens i32 [N, T]. Where there is an image encoder
// the denoiser is trained on samples of its posterior. Of an encoded training set (InputShape) a batch brings what the
// objective's encoders() give: kMoments f32 [N, 2c, h, w] for kImages, and for kTokens kText where the text encoder is frozen.
// Error config (78), "E_LATENTS", where images are no whole number of latents.
std::shared_ptr<const Objective> objective(DiffusionNetworks networks, InputShape input,
                                           const DiffusionConfig& config);

inline constexpr std::string_view kDenoise = "denoise", kEncodeText = "encode_text", kDecode = "decode",
                                  kEncodeImage = "encode_image";
// kDenoise: kImages f32 [N, C, H, W], kTimesteps f32 [N], and kLabels i32 [N] or kText f32 [N, T, W] ->
// prediction f32 [N, C, H, W]. kEncodeText, where there is a text encoder: kTokens i32 [N, T] -> kText. kEncodeImage is an objective's own, an encoder: kImages u8 [N, C, H, W] -> kMoments. kDecode, where
// there is a decoder: kImages f32 [N, c, H / scale, W / scale], which are what kDenoise takes and gives then -> image f32 [N, C,
// H, W].
std::vector<Program> programs(const DiffusionNetworks& networks, const InputShape& input,
                              const DiffusionConfig& config);

}  // namespace lockstep::diffusion
