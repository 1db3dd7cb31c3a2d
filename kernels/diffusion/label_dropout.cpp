// SPDX-License-Identifier: Apache-2.0
// The only CPU kernel: one draw a sample leaves nothing to make faster.
#include "kernels/diffusion/label_dropout.h"
#include "kernels/core/step_state.h"
#include "kernels/diffusion/kernels.h"
#include "kernels/random/philox.h"

namespace lockstep::diffusion {
namespace {

void drop_labels(const LabelDropoutParams& p, const KernelArgs& args) {
  const StepState& state = *args.in[1].as<const StepState>();
  for (int64_t n = 0; n < args.in[0].dim(0); ++n) {
    const Philox4 draw = random4(state.seed, stream::kLabelDropout, state.step, state.first_sample + n, 0);
    const bool drop = uniform01(draw.x[0]) < p.p;
    args.out[0].as<int32_t>()[n] = drop ? p.null_label : args.in[0].as<int32_t>()[n];
  }
}

}  // namespace

void register_label_dropout(Registry& r) {
  r.add({.op = "label_dropout",
         .name = "reference",
         .bit_exact = {.threads = true, .shard = true},
         .make = stateless<LabelDropoutParams>(drop_labels)});
}

}  // namespace lockstep::diffusion
