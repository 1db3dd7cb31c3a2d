// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/conv2d/conv2d.h"
#include "kernels/core/kernel.h"

namespace lockstep {

// 5 x 5 convolutions of stride 1 by Winograd's minimal filtering with a sample in each vector lane, so that no transform
// crosses a vector. Any image size and padding; decline other kernels, strides, dilations and groups.
//   forward          F(4, 5) along rows, with sums over the filters' rows: 40 multiplications in place of 100
//   input gradient   the transpose of F(4x4, 5x5): 64 in place of 400; declines less than 4 channels on one side, where such
//                    transforms cost more than they save
//   weight gradient  F(5x5, 4x4), with less than 4 channels on one side F(5, 4) along rows
// Forward, F(4x4, 5x5) would be 1.3 times as fast, and rounds 2.7 times as much: it decides more maxima and ReLUs otherwise
// than exact numbers would. What gradients round decides nothing.
//
// Error on normal data, max |error| / max |exact|, of 1 or 10 channels: forward 0.7 to 1.2e-6, the others 1 to 4e-6, a direct
// sum's being 2e-7 to 1.4e-6 (the points: lanes_winograd_transforms-inl.h). Weight gradients are summed over tiles, or
// vectors of samples, in double. Bits depend neither on threads nor, but for the weight gradient, on how the batch is cut.
std::unique_ptr<Kernel> make_conv2d_lanes_winograd(const KernelRequest&);
std::unique_ptr<Kernel> make_conv2d_input_grad_lanes_winograd(const KernelRequest&);
std::unique_ptr<Kernel> make_conv2d_weight_grad_lanes_winograd(const KernelRequest&);

// Whether a convolution that it accepts takes fewer operations than a direct one: multiplications, and what was measured of
// transforms a tile and channel.
bool conv2d_lanes_winograd_pays(const KernelRequest&);

}  // namespace lockstep
