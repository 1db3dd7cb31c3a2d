// SPDX-License-Identifier: Apache-2.0
#include "kernels/linear/gemm.h"

#include "kernels/conv2d/gemm.h"

namespace lockstep {

namespace {

// Images of one pixel, whose channels the features are. w [M, K].
GemmProblem problem(const KernelRequest& r, int64_t samples, const Shape& w, bool bias) {
  Patches features{.c = w[1]};
  features.params.activation = r.params.as<LinearParams>().activation;
  return {features, samples, w[0], bias, r.threads};
}

}  // namespace

std::unique_ptr<Kernel> make_linear_gemm(const KernelRequest& r) {
  return make_gemm(problem(r, r.in[0].shape[0], r.in[1].shape, r.in.size() > 2));
}

std::unique_ptr<Kernel> make_linear_input_grad_gemm(const KernelRequest& r) {
  return make_gemm_input_grad(problem(r, r.in[0].shape[0], r.in[1].shape, false));
}

std::unique_ptr<Kernel> make_linear_weight_grad_gemm(const KernelRequest& r) {
  if (r.out[0].dtype != DType::f32) return nullptr;
  return make_gemm_weight_grad(problem(r, r.in[0].shape[0], r.out[0].shape, r.out.size() > 1));
}

}  // namespace lockstep
