// SPDX-License-Identifier: Apache-2.0
// Karras et al.: "Elucidating the design space of diffusion-based generative models" (2022): Euler's method
// in x_0 + sigma noise, where the model's input is scaled to unit variance; and its ancestral form, which
// goes down to sigma_down and adds noise of sigma_up, the two making up the next sigma.
#include <algorithm>
#include <cmath>

#include "models/diffusion/samplers/samplers.h"

namespace lockstep::diffusion {
namespace {

class Euler : public Sampler {
 public:
  Euler(const SchedulerConfig& c, int64_t steps, bool ancestral)
      : prediction_(c.schedule.prediction_type[0]), ancestral_(ancestral) {
    if (ancestral && prediction_ == 's')
      throw refuse("prediction_type=sample: expected epsilon or v_prediction for euler_ancestral");
    const std::vector<float> sigmas = choose_steps(c, steps);
    expect_distinct_first(c, timesteps_);
    init_noise_sigma_ = *std::max_element(sigmas.begin(), sigmas.end());
    if (c.timestep_spacing == "leading")
      init_noise_sigma_ = std::sqrt(init_noise_sigma_ * init_noise_sigma_ + 1);
    for (size_t i = 0; i < timesteps_.size(); ++i) {
      const float sigma = sigmas[i], next = sigmas[i + 1], square = sigma * sigma, next_square = next * next;
      Step s{.sigma = sigma,
             .input_scale = std::sqrt(square + 1),
             .of_velocity = -sigma / std::sqrt(square + 1),
             .one_plus_square = square + 1,
             .change = next - sigma};
      if (ancestral) {
        s.of_noise = std::sqrt(next_square * (square - next_square) / square);
        s.change = std::sqrt(next_square - s.of_noise * s.of_noise) - sigma;
      }
      expect_finite(c, fmt::format("use_karras_sigmas={}", c.use_karras_sigmas), timesteps_, i,
                    {1 / sigma, s.input_scale, s.change, s.of_noise});
      steps_.push_back(s);
    }
  }

  bool needs_noise(int64_t) const override { return ancestral_; }

  void scale_model_input(int64_t i, std::span<const float> x, std::span<float> input) const override {
    const float scale = steps_[static_cast<size_t>(i)].input_scale;
    for (size_t e = 0; e < x.size(); ++e) input[e] = x[e] / scale;
  }

 private:
  void update(int64_t i, std::span<const float> output, std::span<float> x, std::span<const float> noise,
              int64_t) override {
    const Step& s = steps_[static_cast<size_t>(i)];
    for (size_t e = 0; e < x.size(); ++e) {
      float x0 = output[e];
      if (prediction_ == 'e') x0 = x[e] - s.sigma * output[e];
      if (prediction_ == 'v') x0 = output[e] * s.of_velocity + x[e] / s.one_plus_square;
      x[e] += (x[e] - x0) / s.sigma * s.change;
    }
    if (ancestral_)
      for (size_t e = 0; e < x.size(); ++e) x[e] += noise[e] * s.of_noise;
  }

  // Sets timesteps_ and gives each step's sigma and the one after the last.
  std::vector<float> choose_steps(const SchedulerConfig& c, int64_t steps) {
    const Sigmas table(c.schedule);
    timesteps_ = spaced_timesteps(c, steps, {steps, c.schedule.num_train_timesteps, false});
    std::vector<double> sigmas;
    for (const float t : timesteps_) sigmas.push_back(table.at(t));
    if (ancestral_) return with_final_sigma({}, sigmas, 0);  // it has neither option of the following
    if (c.use_karras_sigmas) {
      sigmas = karras_sigmas(sigmas.front(), sigmas.back(), static_cast<int64_t>(sigmas.size()));
      for (size_t i = 0; i < sigmas.size(); ++i)
        timesteps_[i] = static_cast<float>(table.timestep_of(sigmas[i]));
    }
    return with_final_sigma(c, sigmas, table[0]);
  }

  struct Step {
    float sigma, input_scale, of_velocity, one_plus_square, change, of_noise = 0;
  };
  char prediction_;
  bool ancestral_;
  std::vector<Step> steps_;
};

}  // namespace

std::unique_ptr<Sampler> make_euler(const SchedulerConfig& config, int64_t steps) {
  return std::make_unique<Euler>(config, steps, false);
}

std::unique_ptr<Sampler> make_euler_ancestral(const SchedulerConfig& config, int64_t steps) {
  return std::make_unique<Euler>(config, steps, true);
}

}  // namespace lockstep::diffusion
