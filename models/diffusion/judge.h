// SPDX-License-Identifier: Apache-2.0
// How good a diffusion model's images are, as a classifier that was trained on the same data reads them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "models/diffusion/frechet_distance.h"
#include "models/inference_session.h"

namespace lockstep::diffusion {

// What a classifier says of images: the likeliest class of each, and what its last linear layer reads, which
// is its last hidden layer.
struct Reading {
  std::vector<int32_t> classes;  // [count]
  std::vector<float> features;   // [count, width]
  int64_t width = 0;
};

// `pixels`: u8 [count, C, H, W] of the classifier's shape; it normalises them as its own data. Throws
// Error(Exit::config) where it has no linear layer.
Reading read_images(InferenceSession& classifier, std::span<const uint8_t> pixels);

struct Verdict {
  std::optional<double>
      accuracy;         // 0..1: share of the samples read as the class asked for; none without labels
  double distance = 0;  // Fréchet distance of the samples' features to those of the reference images
  double training_distance = 0;  // the same of real training images: what a perfect model would come to
  double ratio() const { return distance / training_distance; }
};

class Judge {
 public:
  // Reads the real images, at least two of each kind; pixels as above. `classifier` outlives the judge.
  Judge(InferenceSession& classifier, std::span<const uint8_t> training, std::span<const uint8_t> reference);
  // labels: the classes asked for, one a sample, or none. At least two samples.
  Verdict operator()(std::span<const uint8_t> samples, std::span<const int32_t> labels) const;

 private:
  InferenceSession& classifier_;
  Gaussian reference_;
  double training_distance_;
};

}  // namespace lockstep::diffusion
