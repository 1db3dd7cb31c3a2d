// SPDX-License-Identifier: Apache-2.0
#include "models/diffusion/sampler.h"

#include <algorithm>
#include <cmath>

#include "models/diffusion/samplers/samplers.h"

namespace lockstep::diffusion {

Error refuse(std::string message) { return Error(Exit::config, "E_SAMPLER", std::move(message)); }

void expect_word(std::string_view key, const std::string& value,
                 std::initializer_list<std::string_view> words) {
  if (std::find(words.begin(), words.end(), value) == words.end())
    throw refuse(fmt::format("{}={}: expected {}", key, value, fmt::join(words, ", ")));
}

void expect_finite(const SchedulerConfig& c, const std::string& options, std::span<const float> timesteps,
                   size_t i, std::initializer_list<float> coefficients) {
  if (std::all_of(coefficients.begin(), coefficients.end(), [](float x) { return std::isfinite(x); })) return;
  throw refuse(fmt::format(
      "step {} of {} (timestep {}) has coefficients that are not finite numbers with "
      "prediction_type={}, timestep_spacing={}, {}",
      i + 1, timesteps.size(), timesteps[i], c.schedule.prediction_type, c.timestep_spacing, options));
}

void Sampler::scale_model_input(int64_t, std::span<const float> x, std::span<float> input) const {
  std::copy(x.begin(), x.end(), input.begin());
}

void Sampler::step(int64_t i, std::span<const float> model_output, std::span<float> x,
                   std::span<const float> noise, int64_t elements) {
  LOCKSTEP_ASSERT(i < steps() && (i == 0 || i == next_), "step {} after {}", i, next_);
  LOCKSTEP_ASSERT(model_output.size() == x.size() && x.size() % static_cast<size_t>(elements) == 0);
  LOCKSTEP_ASSERT(!needs_noise(i) || noise.size() == x.size());
  update(i, model_output, x, noise, elements);
  next_ = i + 1;
}

void Sampler::estimate(int64_t i, std::span<const float> input, std::span<const float> model_output,
                       std::span<float> x0) const {
  LOCKSTEP_ASSERT(input.size() == model_output.size() && input.size() == x0.size());
  // Timesteps may lie between two whole ones.
  const double t = timesteps_[static_cast<size_t>(i)];
  const auto below = static_cast<size_t>(std::max(0.0, t)), last = alphas_cumprod_.size() - 1;
  const double share = t - std::floor(t), a = (1 - share) * double{alphas_cumprod_[std::min(below, last)]} +
                                              share * double{alphas_cumprod_[std::min(below + 1, last)]};
  const auto signal = static_cast<float>(std::sqrt(a)), noise = static_cast<float>(std::sqrt(1 - a));
  for (size_t e = 0; e < x0.size(); ++e) {
    const float x = predict_x0(prediction_, model_output[e], input[e], signal, noise);
    x0[e] = std::isfinite(x) ? x : 0;
  }
}

std::span<const SamplerName> sampler_names() {
  static const SamplerName kNames[] = {
      {"ddpm", "DDPMScheduler"},           {"ddim", "DDIMScheduler"},
      {"pndm", "PNDMScheduler"},           {"dpm_solver", "DPMSolverMultistepScheduler"},
      {"euler", "EulerDiscreteScheduler"}, {"euler_ancestral", "EulerAncestralDiscreteScheduler"}};
  return kNames;
}

std::unique_ptr<Sampler> make_sampler(const std::string& name, const SchedulerConfig& config, int64_t steps,
                                      double eta) {
  const bool known = std::any_of(sampler_names().begin(), sampler_names().end(),
                                 [&](const SamplerName& s) { return s.name == name; });
  if (!known)
    throw refuse(
        fmt::format("sampler={}: expected ddpm, ddim, pndm, dpm_solver, euler or euler_ancestral", name));
  for (const SchedulerConfig::Refused& r : config.refused)
    if (std::find(r.samplers.begin(), r.samplers.end(), name) != r.samplers.end())
      throw refuse(fmt::format("{} is not supported for sampler={}", r.option, name)).hint("another sampler");
  if (eta != 0 && name != "ddim")
    throw refuse(fmt::format("eta={} with sampler={}: only ddim has it", eta, name));
  if (steps < 1) throw refuse(fmt::format("steps={}: expected at least 1", steps));
  if (config.steps_offset < 0)
    throw refuse(fmt::format("steps_offset={}: expected at least 0", config.steps_offset));

  SchedulerConfig c = config;
  const bool by_timestep = name == "ddpm" || name == "ddim" || name == "pndm";
  if (c.timestep_spacing.empty()) c.timestep_spacing = by_timestep ? "leading" : "linspace";
  expect_word("timestep_spacing", c.timestep_spacing, {"leading", "linspace", "trailing"});
  std::unique_ptr<Sampler> sampler = name == "ddpm"         ? make_ddpm(c, steps)
                                     : name == "ddim"       ? make_ddim(c, steps, eta)
                                     : name == "pndm"       ? make_pndm(c, steps)
                                     : name == "dpm_solver" ? make_dpm_solver(c, steps)
                                     : name == "euler"      ? make_euler(c, steps)
                                                            : make_euler_ancestral(c, steps);
  sampler->prediction_ = c.schedule.prediction_type[0];
  sampler->alphas_cumprod_ = make_alphas_cumprod(c.schedule);
  return sampler;
}

}  // namespace lockstep::diffusion
