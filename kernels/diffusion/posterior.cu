// SPDX-License-Identifier: Apache-2.0
// posterior_sample: a thread an element; four neighbours draw the same four normals.
#include "kernels/diffusion/posterior.h"

#include "kernels/core/kernel.h"
#include "kernels/core/step_state.h"
#include "kernels/gpu/device_code.h"
#include "kernels/random/normal.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kPosteriorThreads = 256;

struct PosteriorGeometry {
  int64_t samples, elements, channels, pixels;  // of the latents
  bool nhwc;
};

__global__ void posterior_sample(const float* moments, float* latents, const StepState* state,
                                 PosteriorGeometry g, float scale) {
  const int64_t u = int64_t{blockIdx.x} * kPosteriorThreads + threadIdx.x;
  if (u >= g.samples * g.elements) return;
  const int64_t n = u / g.elements, e = u % g.elements;
  const int64_t c = e / g.pixels, pixel = e % g.pixels;
  const float* of_sample = moments + 2 * n * g.elements;
  const float mean = of_sample[g.nhwc ? pixel * 2 * g.channels + c : e];
  const float log_variance = of_sample[g.nhwc ? pixel * 2 * g.channels + g.channels + c : g.elements + e];
  const Normal4 eps =
      normal4(random4(state->seed, stream::kPosterior, state->step, state->first_sample + n, e / 4));
  const int which = static_cast<int>(e % 4);  // without an index, for which they would lie in memory
  const float own = which < 2 ? (which == 0 ? eps.x[0] : eps.x[1]) : (which == 2 ? eps.x[2] : eps.x[3]);
  const float clamped = log_variance < -30.0f ? -30.0f : log_variance > 20.0f ? 20.0f : log_variance;
  latents[n * g.elements + (g.nhwc ? pixel * g.channels + c : e)] =
      scale * (mean + expf(0.5f * clamped) * own);
}

void run_posterior(const PosteriorParams& p, const KernelArgs& args) {
  const View& latents = args.out[0];
  const Shape& s = latents.shape();
  const PosteriorGeometry g{s[0], s.elements_from(1), s[1], s.elements_from(2),
                            latents.spec.layout == Layout::nhwc};
  launch(posterior_sample, blocks(g.samples * g.elements, kPosteriorThreads), kPosteriorThreads, 0,
         args.stream, args.in[0].as<const float>(), latents.as<float>(), args.in[1].as<const StepState>(), g,
         p.scale);
}

}  // namespace

void register_posterior(Registry& r, Device device) {
  r.add({.op = "posterior_sample",
         .name = "philox",
         .device = device,
         .layout = LayoutClass::any,
         .bit_exact = {.threads = true, .shard = true},
         .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           if (q.in[0].layout == Layout::lanes) return nullptr;
           return stateless<PosteriorParams>(run_posterior)(q);
         }});
}

}  // namespace lockstep::LOCKSTEP_DEVICE
