// SPDX-License-Identifier: Apache-2.0
// Draws images from a diffusion model: noise by image number, so that any number of ranks and any batch size
// draws the same images; classifier-free guidance (Ho, Salimans, 2022).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "models/diffusion/sampler.h"

namespace lockstep::diffusion {

// The model: what it predicts for x [n, elements], all at one timestep. labels: n, or none for a model
// without classes. n is at most SampleRequest::batch, twice that with guidance.
using Predict = std::function<void(std::span<const float> x, float timestep, std::span<const int32_t> labels,
                                   std::span<float> output)>;

struct SampleRequest {
  int64_t count = 1;
  std::vector<int64_t> numbers;  // [count]: an image's noise is drawn by its number; empty: 0, 1, ...
  int64_t elements = 0;          // of an image: channels * height * width
  int64_t batch = 1;             // images at once
  std::vector<int32_t> labels;   // [count], or empty: a model without classes
  double guidance = 1;           // prediction = null + guidance * (label's - null); 1: the label's alone
  int32_t null_label = 0;        // what stands for 'no class'
  uint64_t seed = 0;
  std::span<const float> init_noise;  // [count, elements] standard normal, instead of the seed's
};

// Standard normal noise of the images of these numbers, [numbers, elements]: draw 0 is what they begin with,
// draw i + 1 what step i adds. `draw_noise` of kernels/diffusion/noise.h with draw for step and the image
// number for sample.
void draw_image_noise(uint64_t seed, int64_t draw, std::span<const int64_t> numbers, std::span<float> out);

// The images, [count, elements]. `progress` is told how many of how many steps are done, over all batches,
// from 0 before the first.
std::vector<float> sample_images(Sampler& sampler, const Predict& predict, const SampleRequest& request,
                                 const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace lockstep::diffusion
