// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/padding.h"
#include "kernels/core/step_state.h"
#include "kernels/dropout/dropout.h"
#include "kernels/dropout/kernels.h"
#include "kernels/random/philox.h"

namespace lockstep::dropout {
namespace {

void dropout_reference(const DropoutParams& p, const KernelArgs& args) {
  const View &x = args.in[0], &y = args.out[0];
  const StepState& state = *args.in[1].as<const StepState>();
  const int64_t inner = x.shape().elements_from(1);
  const int64_t per_draw = p.channelwise ? x.shape().elements_from(2) : 1;
  for (int64_t n = 0; n < x.dim(0); ++n)
    for (int64_t i = 0; i < inner; ++i) {
      const int64_t e = i / per_draw;
      const Philox4 draws =
          random4(state.seed, stream::kDropout + p.layer, state.step, state.first_sample + n, e / 4);
      const bool keep = uniform01(draws.x[e % 4]) >= p.p;
      const double v = x.as<float>()[x.spec.offset(n, i)];
      y.as<float>()[y.spec.offset(n, i)] = keep ? static_cast<float>(v / (1 - static_cast<double>(p.p))) : 0;
    }
  zero_padding_lanes(y);
}

}  // namespace

void register_reference(Registry& r) {
  r.add({.op = "dropout",
         .name = "reference",
         .layout = LayoutClass::any,
         .bit_exact = {.threads = true, .shard = true},
         .make = stateless<DropoutParams>(dropout_reference)});
}

}  // namespace lockstep::dropout
