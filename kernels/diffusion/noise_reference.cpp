// SPDX-License-Identifier: Apache-2.0
// diffusion_noise in double. The normals are what normal.h defines, number by number.
#include <cmath>

#include "kernels/core/padding.h"
#include "kernels/core/step_state.h"
#include "kernels/diffusion/kernels.h"
#include "kernels/random/normal.h"

namespace lockstep::diffusion {
namespace {

void noise_reference(const DiffusionNoiseParams& p, const KernelArgs& args) {
  const View &x0 = args.in[0], &x_t = args.out[0], &target = args.out[1];
  const StepState& state = *args.in[1].as<const StepState>();
  for (int64_t n = 0; n < x0.dim(0); ++n) {
    const int64_t sample = state.first_sample + n;
    const auto timesteps = static_cast<int64_t>(p.alphas_cumprod.size());
    const int32_t t = draw_timestep(state.seed, state.step, sample, timesteps);
    const double ac = p.alphas_cumprod[static_cast<size_t>(t)];
    const double signal = std::sqrt(ac), noise = std::sqrt(1 - ac);
    for (int64_t e = 0; e < x0.shape().elements_from(1); ++e) {
      const double eps = normal4(random4(state.seed, stream::kNoise, state.step, sample, e / 4)).x[e % 4];
      const int64_t at = x0.spec.offset(n, e);
      const double x = x0.as<float>()[at];
      const double wanted = p.prediction == Prediction::epsilon  ? eps
                            : p.prediction == Prediction::sample ? x
                                                                 : signal * eps - noise * x;
      x_t.as<float>()[at] = static_cast<float>(signal * x + noise * eps);
      target.as<float>()[at] = static_cast<float>(wanted);
    }
    args.out[2].as<int32_t>()[n] = t;
    args.out[3].as<float>()[n] = static_cast<float>(loss_weight(p, ac));
  }
  zero_padding_lanes(x_t);
  zero_padding_lanes(target);
}

}  // namespace

void register_noise_reference(Registry& r) {
  r.add({.op = "diffusion_noise",
         .name = "reference",
         .layout = LayoutClass::any,
         .bit_exact = {.threads = true, .shard = true},
         .make = stateless<DiffusionNoiseParams>(noise_reference)});
}

}  // namespace lockstep::diffusion
