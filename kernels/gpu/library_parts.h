// SPDX-License-Identifier: Apache-2.0
// What the vendor's libraries leave to us around a convolution or matrix product: their bias must have the
// output's type, their relu loses NaN, their weight gradients have the activations' type and order.
//
// T below: f32 or bf16, as the spec says. All work is on `stream`; no samples are legal.
#pragma once

#include "kernels/core/activation.h"
#include "kernels/core/tensor.h"

namespace lockstep::LOCKSTEP_DEVICE {

// y = act(y + bias[channel]), in place; y an image (plain or nhwc) or rows [N, M] of T; bias f32, or null.
void add_bias_and_activate(const View& y, const float* bias, Activation, void* stream);

// db[channel] (f32) = sum of dy over everything else, in a fixed order; dy as y above.
int64_t bias_grad_workspace_bytes(const TensorSpec& dy);
void bias_grad(const View& dy, float* db, void* workspace, void* stream);

// to (f32, plain [O, I, KH, KW]) = from, of T, plain or nhwc ([O, KH, KW, I]); where `add`, to += from.
void unpack_weight_grad(const View& from, float* to, bool add, void* stream);

void set_to_zero(const View& f32, void* stream);

}  // namespace lockstep::LOCKSTEP_DEVICE
