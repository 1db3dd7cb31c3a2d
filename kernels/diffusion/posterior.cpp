// SPDX-License-Identifier: Apache-2.0
// The only CPU kernel: what it reads cost a network that takes a thousand times as long.
#include "kernels/diffusion/posterior.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/padding.h"
#include "kernels/core/step_state.h"
#include "kernels/diffusion/kernels.h"
#include "kernels/random/normal.h"

namespace lockstep::diffusion {
namespace {

void sample_posterior(const PosteriorParams& p, const KernelArgs& args) {
  const View &moments = args.in[0], &latents = args.out[0];
  const StepState& state = *args.in[1].as<const StepState>();
  const int64_t elements = latents.shape().elements_from(1);
  for (int64_t n = 0; n < latents.dim(0); ++n)
    for (int64_t begin = 0; begin < elements; begin += 4) {
      const Normal4 eps =
          normal4(random4(state.seed, stream::kPosterior, state.step, state.first_sample + n, begin / 4));
      for (int64_t e = begin; e < std::min(begin + 4, elements); ++e) {
        const double mean = moments.as<float>()[moments.spec.offset(n, e)],
                     log_variance = moments.as<float>()[moments.spec.offset(n, elements + e)];
        const double deviation = std::exp(0.5 * std::clamp(log_variance, -30.0, 20.0));
        latents.as<float>()[latents.spec.offset(n, e)] =
            static_cast<float>(double{p.scale} * (mean + deviation * double{eps.x[e - begin]}));
      }
    }
  zero_padding_lanes(latents);
}

}  // namespace

void register_posterior(Registry& r) {
  r.add({.op = "posterior_sample",
         .name = "reference",
         .layout = LayoutClass::any,
         .bit_exact = {.threads = true, .shard = true},
         .make = stateless<PosteriorParams>(sample_posterior)});
}

}  // namespace lockstep::diffusion
