// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/kernel.h"
#include "kernels/linear/gemm.h"
#include "kernels/linear/onednn.h"
#include "kernels/linear/reference.h"
#include "kernels/linear/simd.h"
#include "kernels/simd/widened.h"

namespace lockstep {

void register_linear(Registry& r) {
  const auto fast = [&](const char* op, const char* kernel, LayoutClass layout, auto make, bool shard,
                        DType dtype = DType::f32) {
    r.add({.op = op,
           .name = kernel,
           .layout = layout,
           .dtype = dtype,
           .bit_exact = {.threads = true, .shard = shard},
           .make = make});
  };
  fast("linear", "lanes", LayoutClass::lanes, make_linear_lanes, true);
  fast("linear_input_grad", "lanes", LayoutClass::lanes, make_linear_input_grad_lanes, true);
  fast("linear_weight_grad", "lanes", LayoutClass::lanes, make_linear_weight_grad_lanes, false);
  fast("linear", "highway", LayoutClass::plain, make_linear_highway, true);
  fast("linear_input_grad", "highway", LayoutClass::plain, make_linear_input_grad_highway, true);
  fast("linear_weight_grad", "highway", LayoutClass::plain, make_linear_weight_grad_highway, false);

  fast("linear", "gemm", LayoutClass::plain, make_linear_gemm, true, DType::bf16);
  fast("linear_input_grad", "gemm", LayoutClass::plain, make_linear_input_grad_gemm, true, DType::bf16);
  fast("linear_weight_grad", "gemm", LayoutClass::plain, make_linear_weight_grad_gemm, false, DType::bf16);

  const auto onednn = [&](const char* op, auto make) {
    for (DType dtype : {DType::f32, DType::bf16})
      r.add({.op = op, .name = "onednn", .layout = LayoutClass::plain, .dtype = dtype, .make = make});
  };
  onednn("linear", make_linear_onednn);
  onednn("linear_input_grad", make_linear_input_grad_onednn);
  onednn("linear_weight_grad", make_linear_weight_grad_onednn);

  // In f32 on bf16 tensors.
  const auto widened = [&](const char* op, MakeKernel make, const FollowBatch& batch) {
    r.add({.op = op,
           .name = "onednn_f32",
           .layout = LayoutClass::plain,
           .dtype = DType::bf16,
           .make = [=](const KernelRequest& q) { return make_widened(q, make, batch); }});
  };
  widened("linear", make_linear_onednn, {.in = {0}, .out = {0}});
  widened("linear_input_grad", make_linear_input_grad_onednn, {.in = {0}, .out = {0}});
  widened("linear_weight_grad", make_linear_weight_grad_onednn, {.in = {0, 1}, .out = {}});

  const auto reference = [&](const char* op, auto f, bool shard) {
    r.add({.op = op,
           .name = "reference",
           .layout = LayoutClass::any,
           .bit_exact = {.threads = true, .shard = shard},
           .make = stateless<LinearParams>(f)});
  };
  reference("linear", linear_reference, true);
  reference("linear_input_grad", linear_input_grad_reference, true);
  reference("linear_weight_grad", linear_weight_grad_reference, false);
}

}  // namespace lockstep
