// SPDX-License-Identifier: Apache-2.0
#include "kernels/cast/cast.h"
#include "kernels/core/bf16.h"

namespace lockstep::cast {
namespace {

void cast_reference(const NoParams&, const KernelArgs& args) {
  const View &x = args.in[0], &y = args.out[0];
  for (int64_t i = 0; i < x.spec.stored_elements(); ++i)
    if (x.spec.dtype == DType::f32)
      y.as<bf16>()[i] = bf16(x.as<float>()[i]);
    else
      y.as<float>()[i] = float(x.as<bf16>()[i]);
}

}  // namespace

void register_reference(Registry& r) {
  r.add({.op = "cast",
         .name = "reference",
         .layout = LayoutClass::any,
         .dtype = DType::bf16,
         .bit_exact = {.threads = true, .shard = true},
         .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           return served(q) ? stateless<NoParams>(cast_reference)(q) : nullptr;
         }});
}

}  // namespace lockstep::cast
