// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/core/kernel.h"
#include "kernels/linear/linear.h"

namespace lockstep {

// f32 or bf16 in the plain layout, computed in f32: see conv2d/gemm.h.
std::unique_ptr<Kernel> make_linear_gemm(const KernelRequest&);
std::unique_ptr<Kernel> make_linear_input_grad_gemm(const KernelRequest&);
std::unique_ptr<Kernel> make_linear_weight_grad_gemm(const KernelRequest&);

}  // namespace lockstep
