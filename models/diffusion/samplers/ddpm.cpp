// SPDX-License-Identifier: Apache-2.0
// Ho, Jain, Abbeel: "Denoising diffusion probabilistic models" (2020), algorithm 2 and equation 7, over any
// descending timesteps: the previous one is the next in the list.
#include <algorithm>
#include <cmath>

#include "models/diffusion/samplers/samplers.h"

namespace lockstep::diffusion {
namespace {

class Ddpm : public Sampler {
 public:
  Ddpm(const SchedulerConfig& c, int64_t steps)
      : prediction_(c.schedule.prediction_type[0]), limit_(c, true) {
    expect_word("variance_type", c.variance_type,
                {"fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"});
    const std::vector<float> alphas_cumprod = make_alphas_cumprod(c.schedule);
    timesteps_ = trained_timesteps(c, steps);
    for (size_t i = 0; i < timesteps_.size(); ++i) {
      const float a = alphas_cumprod[static_cast<size_t>(timesteps_[i])];
      const float a_previous =
          i + 1 < timesteps_.size() ? alphas_cumprod[static_cast<size_t>(timesteps_[i + 1])] : 1;
      const float b = 1 - a, b_previous = 1 - a_previous;
      const float alpha = a / a_previous, beta = 1 - alpha;
      Step s{.signal = std::sqrt(a),
             .noise_level = std::sqrt(b),
             .of_x0 = std::sqrt(a_previous) * beta / b,
             .of_x = std::sqrt(alpha) * b_previous / b};
      if (timesteps_[i] > 0) {
        const float variance = std::max(b_previous / b * beta, 1e-20F);
        if (c.variance_type == "fixed_small") s.of_noise = std::sqrt(variance);
        if (c.variance_type == "fixed_small_log") s.of_noise = std::exp(0.5F * std::log(variance));
        if (c.variance_type == "fixed_large") s.of_noise = std::sqrt(beta);
        // diffusers takes the root of the (negative) logarithm: never a number.
        if (c.variance_type == "fixed_large_log") s.of_noise = std::sqrt(std::log(beta));
      }
      expect_finite(c, "variance_type=" + c.variance_type, timesteps_, i,
                    {prediction_ == 'e' ? 1 / s.signal : 1, s.of_x0, s.of_x, s.of_noise});
      steps_.push_back(s);
    }
  }

  bool needs_noise(int64_t i) const override { return timesteps_[static_cast<size_t>(i)] > 0; }

 private:
  void update(int64_t i, std::span<const float> output, std::span<float> x, std::span<const float> noise,
              int64_t elements) override {
    const Step& s = steps_[static_cast<size_t>(i)];
    x0_.resize(x.size());
    for (size_t e = 0; e < x.size(); ++e)
      x0_[e] = predict_x0(prediction_, output[e], x[e], s.signal, s.noise_level);
    limit_(x0_, elements);
    for (size_t e = 0; e < x.size(); ++e) x[e] = s.of_x0 * x0_[e] + s.of_x * x[e];
    if (needs_noise(i))
      for (size_t e = 0; e < x.size(); ++e) x[e] += s.of_noise * noise[e];
  }

  struct Step {
    float signal, noise_level, of_x0, of_x, of_noise = 0;
  };
  char prediction_;
  Limit limit_;
  std::vector<Step> steps_;
  std::vector<float> x0_;
};

}  // namespace

std::unique_ptr<Sampler> make_ddpm(const SchedulerConfig& config, int64_t steps) {
  return std::make_unique<Ddpm>(config, steps);
}

}  // namespace lockstep::diffusion
