// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/core/kernel.h"
#include "kernels/linear/linear.h"

namespace lockstep {

// oneDNN's inner products, plain layout; its blocked weights are reordered inside run().
std::unique_ptr<Kernel> make_linear_onednn(const KernelRequest&);
std::unique_ptr<Kernel> make_linear_input_grad_onednn(const KernelRequest&);
std::unique_ptr<Kernel> make_linear_weight_grad_onednn(const KernelRequest&);

}  // namespace lockstep
