// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/conv2d/conv2d.h"
#include "kernels/core/kernel.h"

namespace lockstep {

// 3 x 3 convolutions of stride 1 by Winograd's F(4x4, 3x3) in nhwc, the weight gradient by F(3x3, 4x4): 36
// multiplications in place of 144. Any image size and padding; declines other kernels, strides, dilations,
// groups, and fewer than 16 channels on either side, where the transforms cost more than they save.
//
// Error on normal data, max |error| / max |exact|: 1 to 6e-6 for up to 512 channels and 16,384 pixels, a
// direct sum's being 3e-7 to 5e-6 (the points: winograd_transforms-inl.h). Tensors may be bf16 (weights and
// their gradients, biases f32 or bf16 as the request has them); arithmetic is the same f32, so a bf16 output
// is off by that and by its own rounding to nearest, 2^-9 of each number. Bits don't depend on the thread
// count nor, but for the weight gradient, on how the batch is cut.
std::unique_ptr<Kernel> make_conv2d_winograd(const KernelRequest&);
std::unique_ptr<Kernel> make_conv2d_input_grad_winograd(const KernelRequest&);
std::unique_ptr<Kernel> make_conv2d_weight_grad_winograd(const KernelRequest&);

}  // namespace lockstep
