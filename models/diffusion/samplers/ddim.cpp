// SPDX-License-Identifier: Apache-2.0
// Song, Meng, Ermon: "Denoising diffusion implicit models" (2021), equations 12 and 16, over any descending timesteps:
// the previous one is the next in the list, and the noise fits the x_0 that was limited, unless `compat` asks for diffusers'
// (sampler.h).
#include <cmath>

#include "models/diffusion/samplers/samplers.h"

namespace lockstep::diffusion {
namespace {

class Ddim : public Sampler {
 public:
  Ddim(const SchedulerConfig& c, int64_t steps, double eta)
      : prediction_(c.schedule.prediction_type[0]),
        noisy_(eta > 0),
        limit_(c, true),
        follows_limit_(limit_.on() && c.compat != "diffusers") {
    if (!(eta >= 0)) throw refuse(fmt::format("eta={}: expected 0 or more", eta));
    expect_word("compat", c.compat, {"none", "diffusers"});
    const std::vector<float> alphas_cumprod = make_alphas_cumprod(c.schedule);
    timesteps_ = trained_timesteps(c, steps);
    for (size_t i = 0; i < timesteps_.size(); ++i) {
      const auto t = static_cast<int64_t>(timesteps_[i]);
      const int64_t next = i + 1 < timesteps_.size() ? static_cast<int64_t>(timesteps_[i + 1]) : -1;
      const int64_t previous = c.compat == "diffusers" ? t - c.schedule.num_train_timesteps / steps : next;
      const float a = alphas_cumprod[static_cast<size_t>(t)];
      const float a_previous = previous >= 0 ? alphas_cumprod[static_cast<size_t>(previous)]
                               : c.set_alpha_to_one.value_or(true) ? 1
                                                                   : alphas_cumprod[0];
      const float b = 1 - a, b_previous = 1 - a_previous;
      const float of_noise = static_cast<float>(eta) * std::sqrt(b_previous / b * (1 - a / a_previous));
      const Step s{.signal = std::sqrt(a),
                   .noise_level = std::sqrt(b),
                   .of_x0 = std::sqrt(a_previous),
                   .of_epsilon = std::sqrt(b_previous - of_noise * of_noise),
                   .of_noise = of_noise};
      expect_finite(c, fmt::format("eta={}", eta), timesteps_, i,
                    {prediction_ == 'e' ? 1 / s.signal : 1, prediction_ == 's' ? 1 / s.noise_level : 1,
                     s.of_epsilon, s.of_noise});
      steps_.push_back(s);
    }
  }

  bool needs_noise(int64_t) const override { return noisy_; }

 private:
  void update(int64_t i, std::span<const float> output, std::span<float> x, std::span<const float> noise,
              int64_t elements) override {
    const Step& s = steps_[static_cast<size_t>(i)];
    x0_.resize(x.size());
    for (size_t e = 0; e < x.size(); ++e)
      x0_[e] = predict_x0(prediction_, output[e], x[e], s.signal, s.noise_level);
    if (follows_limit_) {
      limit_(x0_, elements);
      for (size_t e = 0; e < x.size(); ++e) x[e] = (x[e] - s.signal * x0_[e]) / s.noise_level;
    } else {
      for (size_t e = 0; e < x.size(); ++e) {
        if (prediction_ == 'e') x[e] = output[e];
        if (prediction_ == 'v') x[e] = s.signal * output[e] + s.noise_level * x[e];
        if (prediction_ == 's') x[e] = (x[e] - s.signal * output[e]) / s.noise_level;
      }
      limit_(x0_, elements);
    }
    for (size_t e = 0; e < x.size(); ++e) x[e] = s.of_x0 * x0_[e] + s.of_epsilon * x[e];
    if (noisy_)
      for (size_t e = 0; e < x.size(); ++e) x[e] += s.of_noise * noise[e];
  }

  struct Step {
    float signal, noise_level, of_x0, of_epsilon, of_noise;
  };
  char prediction_;
  bool noisy_;
  Limit limit_;
  bool follows_limit_;  // the noise is what is left of x_t without the limited x_0, else what the model sees
  std::vector<Step> steps_;
  std::vector<float> x0_;
};

}  // namespace

std::unique_ptr<Sampler> make_ddim(const SchedulerConfig& config, int64_t steps, double eta) {
  return std::make_unique<Ddim>(config, steps, eta);
}

}  // namespace lockstep::diffusion
