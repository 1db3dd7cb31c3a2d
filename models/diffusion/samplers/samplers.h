// SPDX-License-Identifier: Apache-2.0
// What the samplers share. Scalars are computed once, at construction, in the order and precision of
// diffusers' step(); those that are not finite are refused there. Passes over elements round each operation,
// as PyTorch does.
#pragma once

#include <initializer_list>

#include "kernels/core/error.h"
#include "models/diffusion/sampler.h"

namespace lockstep::diffusion {

std::unique_ptr<Sampler> make_ddpm(const SchedulerConfig& config, int64_t steps);
std::unique_ptr<Sampler> make_ddim(const SchedulerConfig& config, int64_t steps, double eta);
std::unique_ptr<Sampler> make_pndm(const SchedulerConfig& config, int64_t steps);
std::unique_ptr<Sampler> make_dpm_solver(const SchedulerConfig& config, int64_t steps);
std::unique_ptr<Sampler> make_euler(const SchedulerConfig& config, int64_t steps);
std::unique_ptr<Sampler> make_euler_ancestral(const SchedulerConfig& config, int64_t steps);

Error refuse(std::string message);
void expect_word(std::string_view key, const std::string& value,
                 std::initializer_list<std::string_view> words);
// `options`: those of the sampler's own that decide about its coefficients, "solver_order=2, ...".
void expect_finite(const SchedulerConfig& config, const std::string& options,
                   std::span<const float> timesteps, size_t i, std::initializer_list<float> coefficients);

// `count` numbers from 0 to `last` - 1 (linspace), every last / count (leading), or down from `last` - 1 by
// num_train_timesteps / steps (trailing), descending. With count = steps + 1, leading and linspace leave out
// the lowest.
struct SpacingRule {
  int64_t count, last;
  bool whole;  // linspace rounds to whole timesteps
};
std::vector<float> spaced_timesteps(const SchedulerConfig& config, int64_t steps, const SpacingRule& rule);
// Whole ones below num_train_timesteps, for the samplers that look alphas_cumprod up by them.
std::vector<float> trained_timesteps(const SchedulerConfig& config, int64_t steps);

// Clipping or thresholding of x_0, in place; of batches whose samples have `elements` numbers each.
class Limit {
 public:
  Limit(const SchedulerConfig& config, bool has_clip_sample);
  void operator()(std::span<float> x0, int64_t elements);
  bool on() const { return clip_ || threshold_; }

 private:
  bool clip_, threshold_;
  float range_, quantile_, max_value_;
  std::vector<float> magnitudes_;
};

// x_0 from the model's output where x_t = signal x_0 + noise_level noise with signal² + noise_level² = 1.
inline float predict_x0(char prediction, float output, float x, float signal, float noise_level) {
  if (prediction == 'e') return (x - noise_level * output) / signal;
  if (prediction == 'v') return signal * x - noise_level * output;
  return output;
}

// Noise levels of the samplers that count in sigma = noise level / signal.
class Sigmas {
 public:
  // sqrt((1 - a) / a) by timestep; with rescale_betas_zero_snr the last, infinite, is 4096, as in diffusers.
  explicit Sigmas(const ScheduleConfig& schedule);
  float operator[](int64_t t) const { return sigmas_[static_cast<size_t>(t)]; }
  int64_t size() const { return static_cast<int64_t>(sigmas_.size()); }
  double at(double t) const;               // linear between timesteps
  double timestep_of(double sigma) const;  // the inverse, linear in log(sigma)

 private:
  std::vector<float> sigmas_, logs_;
};
std::vector<double> karras_sigmas(double max, double min, int64_t count);
// Each step's sigma and the one after the last (final_sigmas_type).
std::vector<float> with_final_sigma(const SchedulerConfig& config, const std::vector<double>& sigmas,
                                    float lowest);
// diffusers looks the first step up by its timestep, would find the second, and run out of steps at the end.
void expect_distinct_first(const SchedulerConfig& config, std::span<const float> timesteps);

}  // namespace lockstep::diffusion
