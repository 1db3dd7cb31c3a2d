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
  if (name == "ddpm") return make_ddpm(c, steps);
  if (name == "ddim") return make_ddim(c, steps, eta);
  if (name == "pndm") return make_pndm(c, steps);
  if (name == "dpm_solver") return make_dpm_solver(c, steps);
  if (name == "euler") return make_euler(c, steps);
  return make_euler_ancestral(c, steps);
}

}  // namespace lockstep::diffusion
