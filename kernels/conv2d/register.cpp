// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv2d/gemm.h"
#include "kernels/conv2d/lanes.h"
#include "kernels/conv2d/lanes_winograd.h"
#include "kernels/conv2d/onednn.h"
#include "kernels/conv2d/reference.h"
#include "kernels/conv2d/winograd.h"
#include "kernels/core/kernel.h"
#include "kernels/simd/widened.h"

namespace lockstep {

void register_conv2d(Registry& r) {
  const auto lanes = [&](const char* op, auto make, bool shard, const char* name = "lanes",
                         bool (*yields)(const KernelRequest&) = nullptr) {
    r.add({.op = op,
           .name = name,
           .layout = LayoutClass::lanes,
           .bit_exact = {.threads = true, .shard = shard},
           .make = make,
           .yields = yields});
  };
  lanes("conv2d", make_conv2d_lanes, true, "lanes", conv2d_lanes_winograd_pays);
  lanes("conv2d_input_grad", make_conv2d_input_grad_lanes, true);
  lanes("conv2d_weight_grad", make_conv2d_weight_grad_lanes, false);
  lanes("conv2d", make_conv2d_lanes_winograd, true, "lanes_winograd");
  lanes("conv2d_input_grad", make_conv2d_input_grad_lanes_winograd, true, "lanes_winograd");
  lanes("conv2d_weight_grad", make_conv2d_weight_grad_lanes_winograd, false, "lanes_winograd");

  const auto winograd = [&](const char* op, auto make, bool shard) {
    for (DType dtype : {DType::f32, DType::bf16})
      r.add({.op = op,
             .name = "winograd",
             .layout = LayoutClass::nhwc,
             .dtype = dtype,
             .bit_exact = {.threads = true, .shard = shard},
             .make = make});
  };
  winograd("conv2d", make_conv2d_winograd, true);
  winograd("conv2d_input_grad", make_conv2d_input_grad_winograd, true);
  winograd("conv2d_weight_grad", make_conv2d_weight_grad_winograd, false);

  const auto gemm = [&](const char* op, auto make, bool shard, DType dtype = DType::bf16) {
    r.add({.op = op,
           .name = "gemm",
           .layout = LayoutClass::nhwc,
           .dtype = dtype,
           .bit_exact = {.threads = true, .shard = shard},
           .make = make});
  };
  gemm("conv2d", make_conv2d_gemm, true);
  gemm("conv2d", make_conv2d_gemm, true, DType::f32);
  gemm("conv2d_input_grad", make_conv2d_input_grad_gemm, true);
  gemm("conv2d_weight_grad", make_conv2d_weight_grad_gemm, false);

  const auto onednn = [&](const char* op, auto make) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      r.add({.op = op, .name = "onednn", .layout = LayoutClass::plain, .dtype = dtype, .make = make});
      r.add({.op = op, .name = "onednn_nhwc", .layout = LayoutClass::nhwc, .dtype = dtype, .make = make});
    }
  };
  onednn("conv2d", make_conv2d_onednn);
  onednn("conv2d_input_grad", make_conv2d_input_grad_onednn);
  onednn("conv2d_weight_grad", make_conv2d_weight_grad_onednn);

  // The same in f32 on bf16 tensors: all that oneDNN has where the processor lacks AVX-512.
  const auto widened = [&](const char* op, MakeKernel make, const FollowBatch& batch) {
    const auto make_bf16 = [=](const KernelRequest& q) { return make_widened(q, make, batch); };
    const auto add = [&](const char* name, LayoutClass layout) {
      r.add({.op = op, .name = name, .layout = layout, .dtype = DType::bf16, .make = make_bf16});
    };
    add("onednn_f32", LayoutClass::plain);
    add("onednn_nhwc_f32", LayoutClass::nhwc);
  };
  widened("conv2d", make_conv2d_onednn, {.in = {0}, .out = {0}});
  widened("conv2d_input_grad", make_conv2d_input_grad_onednn, {.in = {0}, .out = {0}});
  widened("conv2d_weight_grad", make_conv2d_weight_grad_onednn, {.in = {0, 1}, .out = {}});

  const auto reference = [&](const char* op, auto f, bool shard) {
    r.add({.op = op,
           .name = "reference",
           .layout = LayoutClass::any,
           .bit_exact = {.threads = true, .shard = shard},
           .make = stateless<Conv2dParams>(f)});
  };
  reference("conv2d", conv2d_reference, true);
  reference("conv2d_input_grad", conv2d_input_grad_reference, true);
  reference("conv2d_weight_grad", conv2d_weight_grad_reference, false);
}

}  // namespace lockstep
