// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/conv2d/conv2d.h"
#include "kernels/core/kernel.h"

namespace lockstep {

// 16 samples in vector lanes, registers blocked over output channels x places (forward, input gradient) or
// output channels x taps (weight gradient). For few channels: nothing is padded to a vector's width.
// Bits depend neither on threads nor, but for the weight gradient, on how the batch is cut.
std::unique_ptr<Kernel> make_conv2d_lanes(const KernelRequest&);
std::unique_ptr<Kernel> make_conv2d_input_grad_lanes(const KernelRequest&);
std::unique_ptr<Kernel> make_conv2d_weight_grad_lanes(const KernelRequest&);

}  // namespace lockstep
