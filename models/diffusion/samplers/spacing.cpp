// SPDX-License-Identifier: Apache-2.0
// Timesteps and noise levels, in numpy's arithmetic as diffusers uses it.
#include <algorithm>
#include <cmath>

#include "models/diffusion/samplers/samplers.h"

namespace lockstep::diffusion {
namespace {

std::vector<double> linspace(double first, double last, int64_t count) {
  std::vector<double> values(static_cast<size_t>(count), first);
  const double step = (last - first) / static_cast<double>(std::max<int64_t>(count - 1, 1));
  for (size_t i = 1; i < values.size(); ++i) values[i] = static_cast<double>(i) * step + first;
  if (count > 1) values.back() = last;
  return values;
}

}  // namespace

std::vector<float> spaced_timesteps(const SchedulerConfig& c, int64_t steps, const SpacingRule& rule) {
  const std::string& spacing = c.timestep_spacing;
  std::vector<double> t;
  if (spacing == "trailing") {
    // numpy.arange(last, 0, -ratio): its step is the difference of its first two numbers.
    const auto last = static_cast<double>(rule.last);
    const double ratio = static_cast<double>(c.schedule.num_train_timesteps) / static_cast<double>(steps);
    const double step = (last - ratio) - last;
    const auto count = static_cast<int64_t>(std::ceil(last / ratio));
    for (int64_t i = 0; i < count; ++i) t.push_back(std::nearbyint(last + static_cast<double>(i) * step) - 1);
  } else {
    if (spacing == "linspace") {
      t = linspace(0, static_cast<double>(rule.last - 1), rule.count);
      if (rule.whole)
        for (double& value : t) value = std::nearbyint(value);
    } else {
      const int64_t ratio = rule.last / rule.count;
      for (int64_t i = 0; i < rule.count; ++i) t.push_back(static_cast<double>(i * ratio + c.steps_offset));
    }
    std::reverse(t.begin(), t.end());
    t.resize(static_cast<size_t>(steps));
  }
  if (t.back() < 0)
    throw refuse(fmt::format("steps={} with timestep_spacing={} rounds to a last timestep of {}", steps,
                             spacing, t.back()))
        .hint("one step more or less");
  return {t.begin(), t.end()};
}

std::vector<float> trained_timesteps(const SchedulerConfig& c, int64_t steps) {
  const int64_t trained = c.schedule.num_train_timesteps;
  if (steps > trained)
    throw refuse(fmt::format("steps={}: expected at most num_train_timesteps={}", steps, trained));
  std::vector<float> timesteps = spaced_timesteps(c, steps, {steps, trained, true});
  if (timesteps.front() >= static_cast<float>(trained))
    throw refuse(fmt::format(
        "steps={} with timestep_spacing={}, steps_offset={} begins at timestep {}, expected below "
        "num_train_timesteps={}",
        steps, c.timestep_spacing, c.steps_offset, timesteps.front(), trained));
  return timesteps;
}

Sigmas::Sigmas(const ScheduleConfig& schedule) {
  for (const float a : make_alphas_cumprod(schedule)) sigmas_.push_back(std::sqrt((1 - a) / a));
  // diffusers puts 2^-24 for an alphas_cumprod of 0. The root of 2^24 - 1 lies half way between two float32
  // numbers.
  if (schedule.rescale_betas_zero_snr) sigmas_.back() = 4096;
  for (const float sigma : sigmas_) logs_.push_back(std::log(sigma));
}

double Sigmas::at(double t) const {
  const auto below = static_cast<int64_t>(t);
  if (below >= size() - 1) return sigmas_.back();
  const double low = (*this)[below], high = (*this)[below + 1];
  return (high - low) * (t - static_cast<double>(below)) + low;
}

double Sigmas::timestep_of(double sigma) const {
  const double log_sigma = std::log(std::max(sigma, 1e-10));
  size_t low = logs_.size() - 1;
  while (low > 0 && !(log_sigma >= logs_[low])) --low;
  low = std::min(low, logs_.size() - 2);
  const float high_minus = logs_[low] - logs_[low + 1];
  const double w = std::clamp((logs_[low] - log_sigma) / high_minus, 0.0, 1.0);
  return (1 - w) * static_cast<double>(low) + w * static_cast<double>(low + 1);
}

std::vector<double> karras_sigmas(double max, double min, int64_t count) {
  constexpr double kRho = 7;
  const double max_root = std::pow(max, 1 / kRho), min_root = std::pow(min, 1 / kRho);
  std::vector<double> sigmas = linspace(0, 1, count);
  for (double& s : sigmas) s = std::pow(max_root + s * (min_root - max_root), kRho);
  return sigmas;
}

std::vector<float> with_final_sigma(const SchedulerConfig& c, const std::vector<double>& sigmas,
                                    float lowest) {
  expect_word("final_sigmas_type", c.final_sigmas_type, {"zero", "sigma_min"});
  std::vector<float> all(sigmas.begin(), sigmas.end());
  all.push_back(c.final_sigmas_type == "zero" ? 0 : lowest);
  return all;
}

void expect_distinct_first(const SchedulerConfig& c, std::span<const float> timesteps) {
  if (timesteps.size() > 1 && timesteps[0] == timesteps[1])
    throw refuse(
        fmt::format(
            "steps={} with timestep_spacing={}, use_karras_sigmas={}: the first two timesteps are both {}",
            timesteps.size(), c.timestep_spacing, c.use_karras_sigmas, timesteps[0]))
        .hint("fewer steps");
}

}  // namespace lockstep::diffusion
