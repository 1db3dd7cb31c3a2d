// SPDX-License-Identifier: Apache-2.0
#include "kernels/cast/cast.h"
#include "kernels/simd/convert.h"

namespace lockstep::cast {
namespace {

void cast_highway(const NoParams&, const KernelArgs& args, int threads) {
  convert(args.in[0], args.out[0], threads);
}

}  // namespace

void register_highway(Registry& r) {
  r.add({.op = "cast",
         .name = "highway",
         .layout = LayoutClass::any,
         .dtype = DType::bf16,
         .bit_exact = {.threads = true, .shard = true},
         .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           return served(q) ? stateless<NoParams>(cast_highway)(q) : nullptr;
         }});
}

}  // namespace lockstep::cast
