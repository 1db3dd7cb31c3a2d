// SPDX-License-Identifier: Apache-2.0
// What the convolution's GPU kernels share.
#pragma once

#include "kernels/conv2d/conv2d.h"
#include "kernels/core/kernel.h"
#include "kernels/gpu/device_code.h"

namespace lockstep::LOCKSTEP_DEVICE {

// Activations and w are T; b, dw and db are float. Nothing else is served.
template <class T>
inline constexpr DType kDType = sizeof(T) == 2 ? DType::bf16 : DType::f32;

// For few channels, groups, and any layout but lanes.
template <class T>
std::unique_ptr<Kernel> make_direct_conv2d(const KernelRequest&);
template <class T>
std::unique_ptr<Kernel> make_direct_conv2d_input_grad(const KernelRequest&);
template <class T>
std::unique_ptr<Kernel> make_direct_conv2d_weight_grad(const KernelRequest&);

// Matrix products on nhwc images (bf16: on tensor cores) without groups; fastest where channels fill 16
// bytes.
template <class T>
std::unique_ptr<Kernel> make_implicit_gemm_conv2d(const KernelRequest&);
template <class T>
std::unique_ptr<Kernel> make_implicit_gemm_conv2d_input_grad(const KernelRequest&);
template <class T>
std::unique_ptr<Kernel> make_implicit_gemm_conv2d_weight_grad(const KernelRequest&);

}  // namespace lockstep::LOCKSTEP_DEVICE
