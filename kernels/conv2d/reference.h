// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/conv2d/conv2d.h"
#include "kernels/core/kernel.h"

namespace lockstep {

// The plainest loops over logical elements, sums in double; any layout. What other kernels are tested
// against.
void conv2d_reference(const Conv2dParams&, const KernelArgs&, int threads);
void conv2d_input_grad_reference(const Conv2dParams&, const KernelArgs&, int threads);
void conv2d_weight_grad_reference(const Conv2dParams&, const KernelArgs&, int threads);

}  // namespace lockstep
