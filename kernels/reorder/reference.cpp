// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/padding.h"
#include "kernels/reorder/kernels.h"

namespace lockstep::reorder {
namespace {

void reorder_reference(const KernelArgs& args) {
  const View &x = args.in[0], &y = args.out[0];
  const int64_t inner = x.shape().elements_from(1);
  for (int64_t n = 0; n < x.dim(0); ++n)
    for (int64_t i = 0; i < inner; ++i)
      y.as<float>()[y.spec.offset(n, i)] = x.as<float>()[x.spec.offset(n, i)];
  zero_padding_lanes(y);
}

}  // namespace

void register_reference(Registry& r) {
  r.add({.op = "reorder",
         .name = "reference",
         .layout = LayoutClass::any,
         .bit_exact = {.threads = true, .shard = true},
         .make =
             stateless<NoParams>([](const NoParams&, const KernelArgs& args) { reorder_reference(args); })});
}

}  // namespace lockstep::reorder
