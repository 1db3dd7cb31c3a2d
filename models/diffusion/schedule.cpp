// SPDX-License-Identifier: Apache-2.0
#include "models/diffusion/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>

#include "kernels/core/error.h"

namespace lockstep::diffusion {
namespace {

// torch.linspace in float32: a float32 step, counted from the nearer end, product and sum rounded once.
std::vector<float> linspace_f32(double first, double last, int64_t count) {
  const auto a = static_cast<float>(first), b = static_cast<float>(last);
  const float step = count > 1 ? (b - a) / static_cast<float>(count - 1) : 0;
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    values[static_cast<size_t>(i)] = i < count / 2 || count == 1
                                         ? std::fma(step, static_cast<float>(i), a)
                                         : std::fma(-step, static_cast<float>(count - 1 - i), b);
  return values;
}

// Nichol, Dhariwal: "Improved denoising diffusion probabilistic models" (2021), equation 17.
double cosine_alphas_cumprod(double t) {
  const double c = std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2);
  return c * c;
}

std::vector<float> running_product(std::span<const float> betas) {
  std::vector<float> products;
  double product = 1;
  for (const float beta : betas) products.push_back(static_cast<float>(product *= 1.0F - beta));
  return products;
}

// Betas whose alphas_cumprod ends at 0 and begins where it did.
std::vector<float> rescale_to_zero_snr(std::span<const float> betas) {
  std::vector<float> root = running_product(betas);
  for (float& r : root) r = std::sqrt(r);
  const float first = root.front(), last = root.back();
  const float scale = first / (first - last);
  for (float& r : root) {
    r = (r - last) * scale;
    r *= r;  // alphas_cumprod from here on
  }
  std::vector<float> rescaled{1 - root[0]};
  for (size_t t = 1; t < root.size(); ++t) rescaled.push_back(1 - root[t] / root[t - 1]);
  return rescaled;
}

Error refuse_schedule(std::string message) {
  return Error(Exit::config, "E_NOISE_SCHEDULE", std::move(message));
}

}  // namespace

std::vector<float> make_betas(const ScheduleConfig& c) {
  const int64_t count = c.num_train_timesteps;
  constexpr int64_t kMost = 1'000'000;  // as a job may have; a file may say any number
  if (count < 1 || count > kMost)
    throw refuse_schedule(fmt::format("num_train_timesteps={}: expected 1 to {}", count, kMost));
  if (!c.trained_betas.empty()) {
    if (static_cast<int64_t>(c.trained_betas.size()) != count)
      throw refuse_schedule(
          fmt::format("trained_betas has {} values, num_train_timesteps={}: expected as many",
                      c.trained_betas.size(), count));
    return c.trained_betas;
  }
  if (c.beta_schedule == "linear") return linspace_f32(c.beta_start, c.beta_end, count);
  std::vector<float> betas;
  if (c.beta_schedule == "scaled_linear") {
    betas = linspace_f32(std::sqrt(c.beta_start), std::sqrt(c.beta_end), count);
    for (float& b : betas) b *= b;
  } else if (c.beta_schedule == "squaredcos_cap_v2") {
    const auto n = static_cast<double>(count);
    for (int64_t i = 0; i < count; ++i) {
      const double here = cosine_alphas_cumprod(static_cast<double>(i) / n);
      const double next = cosine_alphas_cumprod(static_cast<double>(i + 1) / n);
      betas.push_back(static_cast<float>(std::min(1 - next / here, 0.999)));
    }
  } else if (c.beta_schedule == "sigmoid") {
    const auto begin = static_cast<float>(c.beta_start),
               range = static_cast<float>(c.beta_end - c.beta_start);
    betas = linspace_f32(-6, 6, count);
    for (float& b : betas) b = 1 / (1 + std::exp(-b)) * range + begin;
  } else {
    throw refuse_schedule(fmt::format(
        "beta_schedule={}: expected linear, scaled_linear, squaredcos_cap_v2 or sigmoid", c.beta_schedule));
  }
  return betas;
}

std::vector<float> make_alphas_cumprod(const ScheduleConfig& c) {
  if (c.prediction_type != "epsilon" && c.prediction_type != "v_prediction" && c.prediction_type != "sample")
    throw refuse_schedule(
        fmt::format("prediction_type={}: expected epsilon, v_prediction or sample", c.prediction_type));
  const std::vector<float> betas = make_betas(c);
  for (size_t t = 0; t < betas.size(); ++t)
    if (!(betas[t] >= 0 && (betas[t] < 1 || (betas[t] == 1 && t + 1 == betas.size()))))
      throw refuse_schedule(
          fmt::format("beta_schedule={}, beta_start={}, beta_end={}: beta {} of timestep {} is not in [0, 1)",
                      c.trained_betas.empty() ? c.beta_schedule : "trained_betas", c.beta_start, c.beta_end,
                      betas[t], t));
  if (!c.rescale_betas_zero_snr) return running_product(betas);
  if (c.prediction_type == "epsilon")
    throw refuse_schedule(
        "rescale_betas_zero_snr=true with prediction_type=epsilon: at the last timestep the image has no "
        "share in the input, which is the noise already")
        .hint("prediction_type: v_prediction");
  if (betas.size() < 2) throw refuse_schedule("rescale_betas_zero_snr=true needs at least two timesteps");
  return running_product(rescale_to_zero_snr(betas));
}

DiffusionConfig training_objective(const ScheduleConfig& config) {
  DiffusionConfig d;
  d.prediction = config.prediction_type;
  const auto alphas = make_alphas_cumprod(config);
  d.alphas_cumprod.assign(alphas.begin(), alphas.end());
  return d;
}

}  // namespace lockstep::diffusion
