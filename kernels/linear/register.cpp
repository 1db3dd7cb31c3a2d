// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/kernel.h"
#include "kernels/linear/gemm.h"
#include "kernels/linear/onednn.h"
#include "kernels/linear/reference.h"
#include "kernels/linear/simd.h"
#include "kernels/linear/tokens.h"
#include "kernels/simd/widened.h"

namespace lockstep {

namespace {

// From so many weights on gemm is the faster of the two: measured on two Zen 3 cores with 1 to 1,024 rows. Where a sample has
// many tokens fewer weights do: on two cores with AVX-512 gemm takes 0.6 of highway's time for 2 x 4,096 tokens of 320 features.
bool large(const KernelRequest& q) {
  const int64_t weights = q.in[1].shape.elements();
  const bool many_tokens = q.in[0].shape.rank() == 3 && q.in[0].shape[1] >= 1024;
  return weights >= (many_tokens ? 100'000 : 400'000);
}

}  // namespace

void register_linear(Registry& r) {
  const auto fast = [&](const char* op, const char* kernel, auto make, bool shard, DType dtype) {
    r.add({.op = op,
           .name = kernel,
           .layout = LayoutClass::plain,
           .dtype = dtype,
           .bit_exact = {.threads = true, .shard = shard},
           .make = for_tokens_too(op, make),
           .yields = std::string_view(kernel) == "highway" ? large : nullptr});
  };
  const auto lanes = [&](const char* op, MakeKernel make, bool shard) {
    r.add({.op = op,
           .name = "lanes",
           .layout = LayoutClass::lanes,
           .bit_exact = {.threads = true, .shard = shard},
           .make = [=](const KernelRequest& q) { return of_tokens(op, q) ? nullptr : make(q); }});
  };
  lanes("linear", make_linear_lanes, true);
  lanes("linear_input_grad", make_linear_input_grad_lanes, true);
  lanes("linear_weight_grad", make_linear_weight_grad_lanes, false);
  fast("linear", "highway", make_linear_highway, true, DType::f32);
  fast("linear_input_grad", "highway", make_linear_input_grad_highway, true, DType::f32);
  fast("linear_weight_grad", "highway", make_linear_weight_grad_highway, false, DType::f32);
  for (DType dtype : {DType::f32, DType::bf16}) {
    fast("linear", "gemm", make_linear_gemm, true, dtype);
    fast("linear_input_grad", "gemm", make_linear_input_grad_gemm, true, dtype);
  }
  fast("linear_weight_grad", "gemm", make_linear_weight_grad_gemm, false, DType::bf16);

  const auto onednn = [&](const char* op, auto make) {
    for (DType dtype : {DType::f32, DType::bf16})
      r.add({.op = op,
             .name = "onednn",
             .layout = LayoutClass::plain,
             .dtype = dtype,
             .make = for_tokens_too(op, make)});
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
           .make = for_tokens_too(op, [=](const KernelRequest& q) { return make_widened(q, make, batch); })});
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
