// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "models/diffusion/samplers/samplers.h"

namespace lockstep::diffusion {

Limit::Limit(const SchedulerConfig& c, bool has_clip_sample)
    : clip_(has_clip_sample && c.clip_sample && !c.thresholding),
      threshold_(c.thresholding),
      range_(static_cast<float>(c.clip_sample_range)),
      quantile_(static_cast<float>(c.dynamic_thresholding_ratio)),
      max_value_(static_cast<float>(c.sample_max_value)) {
  if (clip_ && !(c.clip_sample_range > 0))
    throw refuse(fmt::format("clip_sample_range={}: expected a number above 0", c.clip_sample_range));
  if (threshold_ && !(c.dynamic_thresholding_ratio >= 0 && c.dynamic_thresholding_ratio <= 1))
    throw refuse(fmt::format("dynamic_thresholding_ratio={}: expected 0 to 1", c.dynamic_thresholding_ratio));
  if (threshold_ && !(c.sample_max_value > 0))
    throw refuse(fmt::format("sample_max_value={}: expected a number above 0", c.sample_max_value));
}

void Limit::operator()(std::span<float> x0, int64_t elements) {
  if (clip_)
    for (float& x : x0) x = std::clamp(x, -range_, range_);
  if (!threshold_) return;
  const auto n = static_cast<size_t>(elements);
  // torch.quantile: between the two order statistics around rank quantile * (n - 1), in float32.
  const float rank = quantile_ * static_cast<float>(n - 1);
  const auto below = static_cast<size_t>(rank);
  const float weight = rank - static_cast<float>(below);
  for (size_t begin = 0; begin < x0.size(); begin += n) {
    const std::span<float> sample = x0.subspan(begin, n);
    magnitudes_.resize(n);
    std::transform(sample.begin(), sample.end(), magnitudes_.begin(), [](float x) { return std::abs(x); });
    const auto low = magnitudes_.begin() + static_cast<std::ptrdiff_t>(below);
    std::nth_element(magnitudes_.begin(), low, magnitudes_.end());
    const float a = *low;
    const float b = below + 1 < n ? *std::min_element(low + 1, magnitudes_.end()) : a;
    const float quantile = weight < 0.5F ? a + weight * (b - a) : b - (b - a) * (1 - weight);
    const float s = std::min(std::max(quantile, 1.0F), max_value_);
    for (float& x : sample) x = std::clamp(x, -s, s) / s;
  }
}

}  // namespace lockstep::diffusion
