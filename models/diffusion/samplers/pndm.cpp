// SPDX-License-Identifier: Apache-2.0
// Liu, Ren, Lin, Zhao: "Pseudo numerical methods for diffusion models on manifolds" (2022), algorithm 2 (F-PNDM): from
// timestep to timestep by equation 9, along a slope that a linear multistep method makes of the model's last four outputs
// (equation 12). The first three steps are Runge-Kutta's (equation 13), of four outputs each. With skip_prk_steps the first
// is Heun's, of two, and the order grows with the outputs. Steps follow the list of timesteps, unless `compat` asks for
// diffusers' (sampler.h).
#include <algorithm>
#include <array>
#include <cmath>

#include "models/diffusion/samplers/samplers.h"

namespace lockstep::diffusion {
namespace {

constexpr size_t kRungeKuttaSteps = 3, kStages = 4;

class Pndm : public Sampler {
 public:
  Pndm(const SchedulerConfig& c, int64_t steps)
      : velocity_(c.schedule.prediction_type == "v_prediction"), runge_kutta_(!c.skip_prk_steps) {
    if (c.schedule.prediction_type == "sample")
      throw refuse("prediction_type=sample: expected epsilon or v_prediction for pndm");
    // PNDMScheduler lacks the key and would take out noise of other levels than the model was trained on.
    if (c.schedule.rescale_betas_zero_snr)
      throw refuse("rescale_betas_zero_snr=true is not supported for sampler=pndm").hint("another sampler");
    expect_word("compat", c.compat, {"none", "diffusers"});
    choose_timesteps(c, steps);
    const bool diffusers = c.compat == "diffusers";
    const int64_t ratio = c.schedule.num_train_timesteps / steps;
    const std::vector<float> alphas_cumprod = make_alphas_cumprod(c.schedule);
    const float last = c.set_alpha_to_one.value_or(false) ? 1 : alphas_cumprod[0];
    const auto at = [&](int64_t t) { return t >= 0 ? alphas_cumprod[static_cast<size_t>(t)] : last; };
    for (size_t i = 0; i < timesteps_.size(); ++i) {
      const auto listed = [&](size_t k) {
        return k < timesteps_.size() ? static_cast<int64_t>(timesteps_[k]) : -1;
      };
      int64_t from = listed(i), to = listed(i + 1);
      const bool corrects_first = !runge_kutta_ && i == 1;
      if (in_runge_kutta(i)) {
        from = listed(i / kStages * kStages);
        if (diffusers) to = listed(i) - (i % 2 ? 0 : ratio / 2);
      } else if (corrects_first) {
        from = diffusers ? listed(1) + ratio : listed(0);
      } else if (diffusers) {
        to = listed(i) - ratio;
      }
      const float a = at(from), b = at(to);
      const Step s{.signal = std::sqrt(a),
                   .noise_level = std::sqrt(1 - a),
                   .of_x = std::sqrt(b / a),
                   .change = b - a,
                   .divisor = a * std::sqrt(1 - b) + std::sqrt(a * (1 - a) * b)};
      expect_finite(c, fmt::format("skip_prk_steps={}", c.skip_prk_steps), timesteps_, i,
                    {s.of_x, 1 / s.divisor});
      steps_.push_back(s);
    }
  }

  bool needs_noise(int64_t) const override { return false; }

 private:
  bool in_runge_kutta(size_t i) const { return runge_kutta_ && i < kRungeKuttaSteps * kStages; }

  void choose_timesteps(const SchedulerConfig& c, int64_t steps) {
    const std::vector<float> list = trained_timesteps(c, steps);
    if (!runge_kutta_) {
      timesteps_ = list;
      if (list.size() > 1) timesteps_.insert(timesteps_.begin() + 1, list[1]);
      return;
    }
    if (list.size() <= kRungeKuttaSteps)
      throw refuse(fmt::format("steps={} with skip_prk_steps=false: expected at least {}", steps,
                               kRungeKuttaSteps + 1))
          .hint("more steps, or skip_prk_steps: true");
    for (size_t k = 0; k < kRungeKuttaSteps; ++k) {
      const float next = list[k + 1];
      const int64_t step = c.compat == "diffusers" ? c.schedule.num_train_timesteps / steps
                                                   : static_cast<int64_t>(list[k] - next);
      const int64_t half = step / 2;
      const float middle = next + static_cast<float>(half);
      timesteps_.insert(timesteps_.end(), {list[k], middle, middle, next});
    }
    timesteps_.insert(timesteps_.end(), list.begin() + kRungeKuttaSteps, list.end());
  }

  void update(int64_t step, std::span<const float> output, std::span<float> x, std::span<const float>,
              int64_t) override {
    const auto i = static_cast<size_t>(step);
    const bool stage = in_runge_kutta(i), corrects_first = !runge_kutta_ && i == 1;
    if (i == 0) kept_ = 0;
    const bool begins = stage ? i % kStages == 0 : !corrects_first;
    if (begins) {
      keep(output);
      start_.assign(x.begin(), x.end());
    }
    slope_.assign(output.begin(), output.end());
    if (stage)
      add_stage(i % kStages);
    else if (corrects_first)
      for (size_t e = 0; e < x.size(); ++e) slope_[e] = (output[e] + outputs_[0][e]) / 2;
    else
      combine();
    const Step& s = steps_[i];
    if (velocity_)
      for (size_t e = 0; e < x.size(); ++e) slope_[e] = s.signal * slope_[e] + s.noise_level * start_[e];
    for (size_t e = 0; e < x.size(); ++e) x[e] = s.of_x * start_[e] - s.change * slope_[e] / s.divisor;
  }

  // Runge-Kutta's weighted mean of a step's four outputs, summed up in mean_; the last goes along it.
  void add_stage(size_t stage) {
    const float weight = stage == 0 || stage == 3 ? 1.0F / 6 : 1.0F / 3;
    if (stage == 0) mean_.assign(slope_.size(), 0);
    for (size_t e = 0; e < slope_.size(); ++e) mean_[e] += weight * slope_[e];
    if (stage == 3) slope_ = mean_;
  }

  // Adams and Bashforth's, of as many outputs as there are.
  void combine() {
    const auto& [e1, e2, e3, e4] = outputs_;
    for (size_t e = 0; e < slope_.size(); ++e) {
      if (kept_ == 2) slope_[e] = (3 * e1[e] - e2[e]) / 2;
      if (kept_ == 3) slope_[e] = (23 * e1[e] - 16 * e2[e] + 5 * e3[e]) / 12;
      if (kept_ == 4) slope_[e] = (55 * e1[e] - 59 * e2[e] + 37 * e3[e] - 9 * e4[e]) * (1.0F / 24);
    }
  }

  void keep(std::span<const float> output) {
    std::rotate(outputs_.begin(), outputs_.end() - 1, outputs_.end());
    outputs_[0].assign(output.begin(), output.end());
    kept_ = std::min(kept_ + 1, outputs_.size());
  }

  struct Step {
    float signal, noise_level, of_x, change, divisor;
  };
  bool velocity_, runge_kutta_;
  std::vector<Step> steps_;
  std::array<std::vector<float>, 4> outputs_;  // the latest first
  size_t kept_ = 0;                            // of them, since step 0
  std::vector<float> start_, slope_, mean_;
};

}  // namespace

std::unique_ptr<Sampler> make_pndm(const SchedulerConfig& config, int64_t steps) {
  return std::make_unique<Pndm>(config, steps);
}

}  // namespace lockstep::diffusion
