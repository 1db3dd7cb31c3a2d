// SPDX-License-Identifier: Apache-2.0
#include "models/diffusion/drawing.h"

#include <algorithm>

#include "kernels/core/error.h"
#include "kernels/diffusion/noise.h"

namespace lockstep::diffusion {

void draw_image_noise(uint64_t seed, int64_t draw, std::span<const int64_t> numbers, std::span<float> out) {
  if (numbers.empty()) return;
  const size_t elements = out.size() / numbers.size();
  for (size_t i = 0; i < numbers.size(); ++i)
    draw_noise(seed, draw, numbers[i], static_cast<int64_t>(elements), out.data() + i * elements);
}

Drawing::Drawing(std::unique_ptr<Sampler> sampler, DrawingRequest request)
    : sampler_(std::move(sampler)), request_(std::move(request)) {
  const auto& r = request_;
  LOCKSTEP_ASSERT(r.elements > 0 && (r.labels.empty() || r.labels.size() == r.numbers.size()));
  images_.resize(r.numbers.size() * static_cast<size_t>(r.elements));
  LOCKSTEP_ASSERT(r.init_noise.empty() || r.init_noise.size() == images_.size());
  if (r.init_noise.empty())
    draw_image_noise(r.seed, 0, r.numbers, images_);
  else
    std::copy(r.init_noise.begin(), r.init_noise.end(), images_.begin());
  for (float& x : images_) x *= sampler_->init_noise_sigma();
}

void Drawing::ask(std::vector<float>& x, std::vector<float>& timesteps, std::vector<int32_t>& labels) {
  input_.resize(images_.size());
  sampler_->scale_model_input(step_, images_, input_);
  for (int time = 0; time < (guided() ? 2 : 1); ++time) {
    x.insert(x.end(), input_.begin(), input_.end());
    if (time == 0)
      labels.insert(labels.end(), request_.labels.begin(), request_.labels.end());
    else
      labels.insert(labels.end(), request_.labels.size(), request_.null_label);
  }
  timesteps.insert(timesteps.end(), static_cast<size_t>(asks()),
                   sampler_->timesteps()[static_cast<size_t>(step_)]);
}

void Drawing::take(std::span<float> predictions) {
  const std::span<float> output = predictions.first(images_.size());
  if (guided()) {
    const auto guidance = static_cast<float>(request_.guidance);
    for (size_t e = 0; e < output.size(); ++e) {
      const float of_label = output[e], of_none = predictions[output.size() + e];
      output[e] = of_none + guidance * (of_label - of_none);
    }
  }
  predicted_.assign(output.begin(), output.end());
  noise_.resize(sampler_->needs_noise(step_) ? images_.size() : 0);
  if (!noise_.empty()) draw_image_noise(request_.seed, step_ + 1, request_.numbers, noise_);
  sampler_->step(step_, output, images_, noise_, request_.elements);
  ++step_;
}

std::vector<float> Drawing::estimate() const {
  LOCKSTEP_ASSERT(step_ > 0);
  std::vector<float> x0(images_.size());
  sampler_->estimate(step_ - 1, input_, predicted_, x0);
  return x0;
}

void Evaluation::operator()(std::span<Drawing* const> drawings) {
  x_.clear(), timesteps_.clear(), labels_.clear();
  for (Drawing* d : drawings) d->ask(x_, timesteps_, labels_);
  LOCKSTEP_ASSERT(labels_.empty() || labels_.size() == timesteps_.size());
  output_.resize(x_.size());
  predict_(x_, timesteps_, labels_, output_);
  size_t at = 0;
  for (Drawing* d : drawings) {
    const size_t count = static_cast<size_t>(d->asks() * d->request_.elements);
    d->take(std::span(output_).subspan(at, count));
    at += count;
  }
}

std::vector<float> draw_images(const DrawingRequest& r, int64_t batch,
                               const std::function<std::unique_ptr<Sampler>()>& sampler,
                               const Predict& predict,
                               const std::function<void(int64_t, int64_t)>& progress) {
  LOCKSTEP_ASSERT(batch > 0);
  Evaluation evaluate(predict);
  std::vector<float> images;
  int64_t done = 0, total = 0;
  const auto count = static_cast<int64_t>(r.numbers.size());
  for (int64_t begin = 0; begin < count; begin += batch) {
    const auto at = static_cast<std::ptrdiff_t>(begin),
               n = static_cast<std::ptrdiff_t>(std::min(batch, count - begin));
    DrawingRequest part = r;
    part.numbers.assign(r.numbers.begin() + at, r.numbers.begin() + at + n);
    if (!r.labels.empty()) part.labels.assign(r.labels.begin() + at, r.labels.begin() + at + n);
    if (!r.init_noise.empty())
      part.init_noise =
          r.init_noise.subspan(static_cast<size_t>(begin * r.elements), static_cast<size_t>(n * r.elements));
    Drawing drawing(sampler(), part);
    if (begin == 0) {
      total = (count + batch - 1) / batch * drawing.steps();
      if (progress) progress(0, total);
    }
    Drawing* const one = &drawing;
    while (!drawing.done()) {
      evaluate(std::span(&one, 1));
      if (progress) progress(++done, total);
    }
    images.insert(images.end(), drawing.images().begin(), drawing.images().end());
  }
  return images;
}

}  // namespace lockstep::diffusion
