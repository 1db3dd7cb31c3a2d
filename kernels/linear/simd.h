// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/core/kernel.h"
#include "kernels/linear/linear.h"

namespace lockstep {

// All of them are a gather_product: broadcast weights against 16 samples, or broadcast gradients against 16
// columns of a weight row, so no sum runs across a vector. Bits depend neither on threads nor, but for
// the weight gradients, on how the batch is cut.
std::unique_ptr<Kernel> make_linear_lanes(const KernelRequest&);
std::unique_ptr<Kernel> make_linear_input_grad_lanes(const KernelRequest&);
std::unique_ptr<Kernel> make_linear_weight_grad_lanes(const KernelRequest&);
// Plain layout.
std::unique_ptr<Kernel> make_linear_highway(const KernelRequest&);
std::unique_ptr<Kernel> make_linear_input_grad_highway(const KernelRequest&);
std::unique_ptr<Kernel> make_linear_weight_grad_highway(const KernelRequest&);

}  // namespace lockstep
