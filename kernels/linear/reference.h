// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/core/kernel.h"
#include "kernels/linear/linear.h"

namespace lockstep {

// The plainest loops over logical elements, sums in double; any layout. What other kernels are tested
// against.
void linear_reference(const LinearParams&, const KernelArgs&, int threads);
void linear_input_grad_reference(const LinearParams&, const KernelArgs&, int threads);
void linear_weight_grad_reference(const LinearParams&, const KernelArgs&, int threads);

}  // namespace lockstep
