// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv2d/gpu.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

template <class T>
void add(Registry& r, Device device) {
  const auto kernel = [&](const char* op, const char* name, LayoutClass layout, auto make) {
    r.add({.op = op,
           .name = name,
           .device = device,
           .layout = layout,
           .dtype = kDType<T>,
           .bit_exact = {.threads = true, .shard = std::string_view(op) != "conv2d_weight_grad"},
           .make = make});
  };
  kernel("conv2d", "implicit_gemm", LayoutClass::nhwc, make_implicit_gemm_conv2d<T>);
  kernel("conv2d_input_grad", "implicit_gemm", LayoutClass::nhwc, make_implicit_gemm_conv2d_input_grad<T>);
  kernel("conv2d_weight_grad", "implicit_gemm", LayoutClass::nhwc, make_implicit_gemm_conv2d_weight_grad<T>);
  kernel("conv2d", "direct", LayoutClass::any, make_direct_conv2d<T>);
  kernel("conv2d_input_grad", "direct", LayoutClass::any, make_direct_conv2d_input_grad<T>);
  kernel("conv2d_weight_grad", "direct", LayoutClass::any, make_direct_conv2d_weight_grad<T>);
}

}  // namespace

void register_conv2d(Registry& r, Device device) {
  add<float>(r, device);
  add<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
