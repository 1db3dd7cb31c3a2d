// SPDX-License-Identifier: Apache-2.0
// Lu et al.: "DPM-Solver++" (2022), the multistep solver of order 1 or 2 in x_0 (algorithm 2).
#include <algorithm>
#include <cmath>

#include "models/diffusion/samplers/samplers.h"

namespace lockstep::diffusion {
namespace {

// alpha, sigma and lambda = log(alpha / sigma) of the paper, where alpha² + sigma² = 1.
struct Level {
  explicit Level(float ratio)
      : alpha(1 / std::sqrt(ratio * ratio + 1)),
        sigma(ratio * alpha),
        lambda(std::log(alpha) - std::log(sigma)) {}
  float alpha, sigma, lambda;
};

class DpmSolver : public Sampler {
 public:
  DpmSolver(const SchedulerConfig& c, int64_t steps)
      : prediction_(c.schedule.prediction_type[0]), limit_(c, false) {
    if (c.solver_order != 1 && c.solver_order != 2)
      throw refuse(fmt::format("solver_order={}: expected 1 or 2", c.solver_order));
    expect_word("solver_type", c.solver_type, {"midpoint", "heun"});
    const std::vector<float> sigmas = choose_steps(c, steps);
    expect_distinct_first(c, timesteps_);
    const std::string options = fmt::format("solver_order={}, solver_type={}, use_karras_sigmas={}",
                                            c.solver_order, c.solver_type, c.use_karras_sigmas);
    const size_t count = timesteps_.size();
    for (size_t i = 0; i < count; ++i) {
      const Level next(sigmas[i + 1]), here(sigmas[i]);
      const bool last = i + 1 == count;
      const bool first_order = c.solver_order == 1 || i == 0 ||
                               (last && (c.euler_at_final || c.final_sigmas_type == "zero" ||
                                         (c.lower_order_final && count < 15)));
      const float h = next.lambda - here.lambda;
      const float decay = std::exp(-h) - 1;
      Step s{.signal = here.alpha,
             .noise_level = here.sigma,
             .of_x = next.sigma / here.sigma,
             .of_x0 = next.alpha * decay,
             .second_order = !first_order};
      if (s.second_order) {
        s.per_step = 1 / ((here.lambda - Level(sigmas[i - 1]).lambda) / h);
        s.of_change = c.solver_type == "midpoint" ? -0.5F * s.of_x0 : next.alpha * (decay / h + 1);
      }
      expect_finite(c, options, timesteps_, i,
                    {prediction_ == 'e' ? 1 / s.signal : 1, s.of_x, s.of_x0, s.per_step, s.of_change});
      steps_.push_back(s);
    }
  }

  bool needs_noise(int64_t) const override { return false; }

 private:
  void update(int64_t i, std::span<const float> output, std::span<float> x, std::span<const float>,
              int64_t elements) override {
    const Step& s = steps_[static_cast<size_t>(i)];
    std::swap(x0_, previous_x0_);
    x0_.resize(x.size());
    for (size_t e = 0; e < x.size(); ++e)
      x0_[e] = predict_x0(prediction_, output[e], x[e], s.signal, s.noise_level);
    limit_(x0_, elements);
    for (size_t e = 0; e < x.size(); ++e) x[e] = s.of_x * x[e] - s.of_x0 * x0_[e];
    if (s.second_order)
      for (size_t e = 0; e < x.size(); ++e) x[e] += s.of_change * (s.per_step * (x0_[e] - previous_x0_[e]));
  }

  // Sets timesteps_ and gives each step's sigma / alpha and the one after the last.
  std::vector<float> choose_steps(const SchedulerConfig& c, int64_t steps) {
    const Sigmas table(c.schedule);
    std::vector<double> sigmas;
    if (c.use_karras_sigmas) {
      sigmas = karras_sigmas(table[table.size() - 1], table[0], steps);
      for (const double sigma : sigmas) {
        const double t = table.timestep_of(sigma);
        const bool cosine =
            c.schedule.beta_schedule == "squaredcos_cap_v2";  // diffusers cuts there, rounds elsewhere
        timesteps_.push_back(static_cast<float>(cosine ? std::trunc(t) : std::nearbyint(t)));
      }
    } else {
      int64_t last = table.size();
      while (last > 1 && Level(table[last - 1]).lambda < c.lambda_min_clipped) --last;
      timesteps_ = spaced_timesteps(c, steps, {steps + 1, last, true});
      for (const float t : timesteps_) sigmas.push_back(table.at(t));
    }
    return with_final_sigma(c, sigmas, table[0]);
  }

  struct Step {
    float signal, noise_level, of_x, of_x0;
    bool second_order;
    float per_step = 0, of_change = 0;
  };
  char prediction_;
  Limit limit_;
  std::vector<Step> steps_;
  std::vector<float> x0_, previous_x0_;
};

}  // namespace

std::unique_ptr<Sampler> make_dpm_solver(const SchedulerConfig& config, int64_t steps) {
  return std::make_unique<DpmSolver>(config, steps);
}

}  // namespace lockstep::diffusion
