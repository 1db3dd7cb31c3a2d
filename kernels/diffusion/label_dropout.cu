// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/kernel.h"
#include "kernels/core/step_state.h"
#include "kernels/diffusion/label_dropout.h"
#include "kernels/gpu/device_code.h"
#include "kernels/random/philox.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kLabelThreads = 128;

__global__ void label_dropout(const int32_t* labels, int32_t* out, const StepState* state, int64_t samples,
                              float p, int32_t null_label) {
  const int64_t n = int64_t{blockIdx.x} * kLabelThreads + threadIdx.x;
  if (n >= samples) return;
  const Philox4 draw = random4(state->seed, stream::kLabelDropout, state->step, state->first_sample + n, 0);
  out[n] = uniform01(draw.x[0]) < p ? null_label : labels[n];
}

void run_label_dropout(const LabelDropoutParams& p, const KernelArgs& args) {
  const int64_t samples = args.in[0].dim(0);
  launch(label_dropout, blocks(samples, kLabelThreads), kLabelThreads, 0, args.stream,
         args.in[0].as<const int32_t>(), args.out[0].as<int32_t>(), args.in[1].as<const StepState>(), samples,
         p.p, p.null_label);
}

}  // namespace

void register_label_dropout(Registry& r, Device device) {
  r.add({.op = "label_dropout",
         .name = "philox",
         .device = device,
         .bit_exact = {.threads = true, .shard = true},
         .make = stateless<LabelDropoutParams>(run_label_dropout)});
}

}  // namespace lockstep::LOCKSTEP_DEVICE
