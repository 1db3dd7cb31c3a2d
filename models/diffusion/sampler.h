// SPDX-License-Identifier: Apache-2.0
// Samplers: from noise to samples in a number of model evaluations, each as the diffusers scheduler of the
// same name does it, in its float32 arithmetic, but for `compat`. Option names and defaults are diffusers'.
//
//   auto sampler = make_sampler("ddim", config, 50);
//   x = normals * sampler->init_noise_sigma();
//   for (int64_t i = 0; i < sampler->steps(); ++i) {
//     sampler->scale_model_input(i, x, input);
//     output = model(input, sampler->timesteps()[i]);     // guidance is done here
//     sampler->step(i, output, x, noise, elements);       // noise: normals where needs_noise(i)
//   }
#pragma once

#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/diffusion/schedule.h"

namespace lockstep::diffusion {

// What a sampler must know. A sampler uses the options that its diffusers class has and, as `from_config`
// does, not the others: that is how one folder serves every sampler.
struct SchedulerConfig {
  ScheduleConfig schedule;
  // leading, linspace, trailing (Lin et al., table 2); empty: leading for ddpm, ddim and pndm, linspace for
  // the others
  std::string timestep_spacing;
  int64_t steps_offset = 0;  // added to each timestep of leading

  // ddpm. Variance of the noise: fixed_small, fixed_small_log, fixed_large; fixed_large_log is refused, as
  // diffusers makes NaN of it
  std::string variance_type = "fixed_small";

  // ddpm, ddim. x_0 is clipped to this range, unless thresholding is on
  bool clip_sample = true;
  double clip_sample_range = 1;

  // ddpm, ddim, dpm_solver. x_0 is clipped to a quantile of its magnitudes in the sample, at least 1 and at
  // most sample_max_value, and divided by it (Saharia et al.: Imagen, 2022, section 2.3)
  bool thresholding = false;
  double dynamic_thresholding_ratio = 0.995, sample_max_value = 1;

  // ddim, pndm. alphas_cumprod after the last step: 1, or that of timestep 0; nothing: 1 for ddim, else that
  std::optional<bool> set_alpha_to_one;
  // ddim, pndm, no option of diffusers. none: each step goes to the list's next timestep. diffusers: to the one that
  // lies num_train_timesteps / steps before, as it does, also where the list's next is another (linspace, trailing): the
  // noise that is taken out is then not what the next step is told. none: where ddim limits x_0, its noise is what then is left
  // of x_t (Dhariwal, Nichol, 2021: guided-diffusion's ddim_sample). diffusers: what the model saw, so that x_t moves
  // away from a limited x_0: with guidance to the opposite colours
  std::string compat = "none";

  // pndm. Without Runge-Kutta's steps n steps are n + 1 evaluations; with them n + 9, and n is at least 4
  bool skip_prk_steps = false;

  // dpm_solver
  int64_t solver_order = 2;              // 1, 2
  std::string solver_type = "midpoint";  // of order 2: midpoint, heun
  bool lower_order_final = true;         // order 1 in the last of less than 15 steps
  bool euler_at_final = false;           // order 1 in the last step
  // Timesteps whose log(alpha / sigma) is lower are left out
  double lambda_min_clipped = -std::numeric_limits<double>::infinity();

  // dpm_solver, euler
  bool use_karras_sigmas = false;  // Karras et al., 2022, equation 5 with rho = 7
  std::string final_sigmas_type =
      "zero";  // sigma after the last step: zero, or sigma_min: that of timestep 0

  // Options at values that we don't implement, with the samplers that they concern, which refuse them.
  struct Refused {
    std::vector<std::string> samplers;
    std::string option;  // "use_beta_sigmas=true"
  };
  std::vector<Refused> refused;
};

class Sampler {
 public:
  virtual ~Sampler() = default;
  // Evaluations of the model: the steps asked for, and more with pndm.
  int64_t steps() const { return static_cast<int64_t>(timesteps_.size()); }
  // What the model is told at each step, descending (pndm: some of them twice). Whole numbers but for euler and
  // euler_ancestral.
  std::span<const float> timesteps() const { return timesteps_; }
  // The standard deviation of the noise to start from.
  float init_noise_sigma() const { return init_noise_sigma_; }
  // Whether step i adds noise. If so, step() wants it, standard normal, as many as `x`.
  virtual bool needs_noise(int64_t i) const = 0;
  // What the model is given at step i, of as many elements as x.
  virtual void scale_model_input(int64_t i, std::span<const float> x, std::span<float> input) const;
  // x, a batch of samples of `elements` numbers each, goes one step on in place. Steps go in order from 0;
  // step 0 begins anew (dpm_solver and pndm keep predictions).
  void step(int64_t i, std::span<const float> model_output, std::span<float> x, std::span<const float> noise,
            int64_t elements);
  // What the model takes the samples for without their noise, by its output at step i and what it was given there
  // (scale_model_input); 0 where that is no finite number. Nothing of it is limited.
  void estimate(int64_t i, std::span<const float> input, std::span<const float> model_output,
                std::span<float> x0) const;

 protected:
  virtual void update(int64_t i, std::span<const float> model_output, std::span<float> x,
                      std::span<const float> noise, int64_t elements) = 0;
  std::vector<float> timesteps_;
  float init_noise_sigma_ = 1;

 private:
  friend std::unique_ptr<Sampler> make_sampler(const std::string&, const SchedulerConfig&, int64_t, double);
  int64_t next_ = 0;
  char prediction_ = 'e';
  std::vector<float> alphas_cumprod_;
};

// ddpm, ddim, pndm, dpm_solver, euler, euler_ancestral, with the names of their diffusers classes.
struct SamplerName {
  std::string name, diffusers_class;
};
std::span<const SamplerName> sampler_names();

// eta: ddim's share of the noise, 0 (none) to 1 (ddpm's); 0 for the others, which have no such thing.
// Throws Error(Exit::config, "E_SAMPLER") naming keys and values for what is unknown, out of range or refused
// above, and for what diffusers cannot do: more steps than timesteps, two equal first timesteps, steps whose
// coefficients are not finite numbers (such as order 2 over two equal timesteps).
std::unique_ptr<Sampler> make_sampler(const std::string& name, const SchedulerConfig& config, int64_t steps,
                                      double eta = 0);

}  // namespace lockstep::diffusion
