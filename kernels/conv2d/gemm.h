// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/conv2d/patches.h"
#include "kernels/core/kernel.h"

namespace lockstep {

// Convolutions of one group in nhwc as matrix products: patches of the input, widened to f32 a few rows at a
// time, times filters in panels, packed once a run. For bf16 tensors (biases and the gradients of weights and
// biases f32), on processors that multiply faster in f32, and forward for f32; errors are those of a direct f32
// sum, and a bf16 output's own rounding. Bits don't depend on the thread count nor, but for the weight gradient, on how the
// batch is cut.
std::unique_ptr<Kernel> make_conv2d_gemm(const KernelRequest&);
std::unique_ptr<Kernel> make_conv2d_input_grad_gemm(const KernelRequest&);
std::unique_ptr<Kernel> make_conv2d_weight_grad_gemm(const KernelRequest&);

// The same by geometry, for whoever sees a product as a convolution. Tensors in the order of conv2d.h.
struct GemmProblem {
  Patches patches;
  int64_t samples = 0, outputs = 0;  // N, O
  bool bias = false;
  int threads = 1;
};
std::unique_ptr<Kernel> make_gemm(const GemmProblem&);
std::unique_ptr<Kernel> make_gemm_input_grad(const GemmProblem&);
std::unique_ptr<Kernel> make_gemm_weight_grad(const GemmProblem&);

}  // namespace lockstep
