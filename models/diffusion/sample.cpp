// SPDX-License-Identifier: Apache-2.0
#include "models/diffusion/sample.h"

#include <algorithm>
#include <numeric>

#include "kernels/core/error.h"
#include "kernels/diffusion/noise.h"

namespace lockstep::diffusion {
namespace {

// Predictions for a batch; with guidance the labels' and the null label's in one evaluation of twice the
// batch.
class Guided {
 public:
  Guided(const Predict& predict, const SampleRequest& request)
      : predict_(predict), request_(request), guided_(!request.labels.empty() && request.guidance != 1) {}

  void operator()(std::span<const float> x, float timestep, std::span<const int32_t> labels,
                  std::span<float> output) {
    if (!guided_) return predict_(x, timestep, labels, output);
    twice_x_.assign(x.begin(), x.end());
    twice_x_.insert(twice_x_.end(), x.begin(), x.end());
    twice_labels_.assign(labels.begin(), labels.end());
    twice_labels_.resize(2 * labels.size(), request_.null_label);
    twice_output_.resize(2 * output.size());
    predict_(twice_x_, timestep, twice_labels_, twice_output_);
    const auto guidance = static_cast<float>(request_.guidance);
    for (size_t e = 0; e < output.size(); ++e) {
      const float of_label = twice_output_[e], of_none = twice_output_[output.size() + e];
      output[e] = of_none + guidance * (of_label - of_none);
    }
  }

 private:
  const Predict& predict_;
  const SampleRequest& request_;
  bool guided_;
  std::vector<float> twice_x_, twice_output_;
  std::vector<int32_t> twice_labels_;
};

}  // namespace

void draw_image_noise(uint64_t seed, int64_t draw, std::span<const int64_t> numbers, std::span<float> out) {
  if (numbers.empty()) return;
  const size_t elements = out.size() / numbers.size();
  for (size_t i = 0; i < numbers.size(); ++i)
    draw_noise(seed, draw, numbers[i], static_cast<int64_t>(elements), out.data() + i * elements);
}

std::vector<float> sample_images(Sampler& sampler, const Predict& predict, const SampleRequest& r,
                                 const std::function<void(int64_t, int64_t)>& progress) {
  LOCKSTEP_ASSERT(r.elements > 0 && r.batch > 0);
  LOCKSTEP_ASSERT(r.labels.empty() || static_cast<int64_t>(r.labels.size()) == r.count);
  std::vector<int64_t> numbers = r.numbers;
  if (numbers.empty())
    numbers.resize(static_cast<size_t>(r.count)), std::iota(numbers.begin(), numbers.end(), 0);
  LOCKSTEP_ASSERT(static_cast<int64_t>(numbers.size()) == r.count);
  LOCKSTEP_ASSERT(r.init_noise.empty() || static_cast<int64_t>(r.init_noise.size()) == r.count * r.elements);
  std::vector<float> images(static_cast<size_t>(r.count * r.elements)), input, output, noise;
  if (r.init_noise.empty())
    draw_image_noise(r.seed, 0, numbers, images);
  else
    std::copy(r.init_noise.begin(), r.init_noise.end(), images.begin());
  for (float& x : images) x *= sampler.init_noise_sigma();

  Guided guided(predict, r);
  const int64_t total = (r.count + r.batch - 1) / r.batch * sampler.steps();
  int64_t done = 0;
  if (progress) progress(done, total);
  for (int64_t begin = 0; begin < r.count; begin += r.batch) {
    const int64_t n = std::min(r.batch, r.count - begin);
    const auto x = std::span(images).subspan(static_cast<size_t>(begin * r.elements),
                                             static_cast<size_t>(n * r.elements));
    const auto labels = r.labels.empty()
                            ? std::span<const int32_t>()
                            : std::span(r.labels).subspan(static_cast<size_t>(begin), static_cast<size_t>(n));
    input.resize(x.size());
    output.resize(x.size());
    for (int64_t i = 0; i < sampler.steps(); ++i) {
      sampler.scale_model_input(i, x, input);
      guided(input, sampler.timesteps()[static_cast<size_t>(i)], labels, output);
      noise.resize(sampler.needs_noise(i) ? x.size() : 0);
      if (!noise.empty())
        draw_image_noise(r.seed, i + 1,
                         std::span(numbers).subspan(static_cast<size_t>(begin), static_cast<size_t>(n)),
                         noise);
      sampler.step(i, output, x, noise, r.elements);
      if (progress) progress(++done, total);
    }
  }
  return images;
}

}  // namespace lockstep::diffusion
