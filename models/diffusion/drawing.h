// SPDX-License-Identifier: Apache-2.0
// Images of one request on their way from noise, a step at a time: requests that arrive at different times
// may share evaluations of the model. Noise is drawn by image number, so that any number of ranks and any batch
// draws the same images. Guidance without a classifier: Ho, Salimans, 2022.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "models/diffusion/sampler.h"

namespace lockstep::diffusion {

// The model: what it predicts for samples x [n, elements], each at its timestep [n]. labels: n, or none for a
// model that is asked nothing.
using Predict = std::function<void(std::span<const float> x, std::span<const float> timesteps,
                                   std::span<const int32_t> labels, std::span<float> output)>;

struct DrawingRequest {
  int64_t elements = 0;          // of an image: channels * height * width
  std::vector<int64_t> numbers;  // one an image: its noise is drawn by the seed and its number
  std::vector<int32_t> labels;   // one an image, or none
  double guidance = 1;           // prediction = null + guidance * (label's - null); 1: the label's alone
  int32_t null_label = 0;        // what stands for 'nothing asked'
  uint64_t seed = 0;
  std::span<const float> init_noise;  // [images, elements] standard normal, instead of the seed's
};

class Drawing {
 public:
  Drawing(std::unique_ptr<Sampler> sampler, DrawingRequest request);

  bool done() const { return step_ == sampler_->steps(); }
  int64_t step() const { return step_; }  // steps done
  int64_t steps() const { return sampler_->steps(); }
  // Samples of a step: the images, twice with guidance.
  int64_t asks() const { return images_count() * (guided() ? 2 : 1); }
  std::span<const float> images() const { return images_; }  // [images, elements], as they are by now
  // [images, elements] as the model saw them without their noise at the last step; one is done.
  std::vector<float> estimate() const;

 private:
  friend class Evaluation;
  int64_t images_count() const { return static_cast<int64_t>(request_.numbers.size()); }
  bool guided() const { return !request_.labels.empty() && request_.guidance != 1; }
  void ask(std::vector<float>& x, std::vector<float>& timesteps, std::vector<int32_t>& labels);
  void take(std::span<float> predictions);

  std::unique_ptr<Sampler> sampler_;
  DrawingRequest request_;
  std::vector<float> images_, input_, noise_, predicted_;
  int64_t step_ = 0;
};

// One step of several drawings in one evaluation of the model. All of them have labels, or none has.
class Evaluation {
 public:
  explicit Evaluation(Predict predict) : predict_(std::move(predict)) {}
  void operator()(std::span<Drawing* const> drawings);

 private:
  Predict predict_;
  std::vector<float> x_, timesteps_, output_;
  std::vector<int32_t> labels_;
};

// All images of a request, `batch` at a time, [images, elements]; each batch has a sampler of its own.
// `progress` is told how many of how many steps are done, over all batches, from 0 before the first.
std::vector<float> draw_images(const DrawingRequest& request, int64_t batch,
                               const std::function<std::unique_ptr<Sampler>()>& sampler,
                               const Predict& predict,
                               const std::function<void(int64_t done, int64_t total)>& progress = {});

// Standard normal noise of the images of these numbers, [numbers, elements]: draw 0 is what they begin with,
// draw i + 1 what step i adds. `draw_noise` of kernels/diffusion/noise.h with draw for step and the image
// number for sample.
void draw_image_noise(uint64_t seed, int64_t draw, std::span<const int64_t> numbers, std::span<float> out);

}  // namespace lockstep::diffusion
