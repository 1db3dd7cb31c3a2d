// SPDX-License-Identifier: Apache-2.0
// Plain loops in double.
#include "kernels/core/padding.h"
#include "kernels/core/step_state.h"
#include "kernels/diffusion/kernels.h"
#include "kernels/diffusion/weighted_mse.h"

namespace lockstep::diffusion {
namespace {

void weighted_mse(const NoParams&, const KernelArgs& args) {
  const View &pred = args.in[0], &target = args.in[1];
  const int64_t elements = pred.shape().elements_from(1);
  double loss = 0;
  for (int64_t n = 0; n < pred.dim(0); ++n) {
    double sum = 0;
    for (int64_t e = 0; e < elements; ++e) {
      const int64_t at = pred.spec.offset(n, e);
      const double d = double{pred.as<float>()[at]} - double{target.as<float>()[at]};
      sum += d * d;
    }
    loss += double{args.in[2].as<float>()[n]} * sum / static_cast<double>(elements);
  }
  args.out[0].as<float>()[0] = static_cast<float>(loss);
  args.out[0].as<float>()[1] = static_cast<float>(pred.dim(0));
}

void weighted_mse_grad(const NoParams&, const KernelArgs& args) {
  const View &pred = args.in[0], &target = args.in[1], &dpred = args.out[0];
  const int64_t elements = pred.shape().elements_from(1);
  const auto samples = static_cast<double>(args.in[3].as<StepState>()->global_samples);
  for (int64_t n = 0; n < pred.dim(0); ++n)
    for (int64_t e = 0; e < elements; ++e) {
      const int64_t at = pred.spec.offset(n, e);
      const double d = double{pred.as<float>()[at]} - double{target.as<float>()[at]};
      const double weight = double{args.in[2].as<float>()[n]};
      dpred.as<float>()[at] = static_cast<float>(2 * weight * d / (static_cast<double>(elements) * samples));
    }
  zero_padding_lanes(dpred);
}

}  // namespace

void register_weighted_mse_reference(Registry& r) {
  // The sum of losses is rounded once a rank, so a cut of the batch shows in its last bit.
  r.add({.op = "weighted_mse",
         .name = "reference",
         .layout = LayoutClass::any,
         .bit_exact = {.threads = true, .shard = false},
         .make = stateless<NoParams>(weighted_mse)});
  r.add({.op = "weighted_mse_grad",
         .name = "reference",
         .layout = LayoutClass::any,
         .bit_exact = {.threads = true, .shard = true},
         .make = stateless<NoParams>(weighted_mse_grad)});
}

}  // namespace lockstep::diffusion
