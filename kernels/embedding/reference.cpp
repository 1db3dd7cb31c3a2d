// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/padding.h"
#include "kernels/embedding/embedding.h"
#include "kernels/embedding/kernels.h"

namespace lockstep::embedding {
namespace {

void embedding_reference(const NoParams&, const KernelArgs& args) {
  const View &table = args.in[0], &ids = args.in[1], &y = args.out[0];
  for (int64_t n = 0; n < ids.dim(0); ++n)
    for (int64_t i = 0; i < table.dim(1); ++i) {
      const int64_t k = ids.as<int32_t>()[n];
      const bool inside = k >= 0 && k < table.dim(0);
      y.as<float>()[y.spec.offset(n, i)] = inside ? table.as<float>()[k * table.dim(1) + i] : 0;
    }
  zero_padding_lanes(y);
}

void embedding_grad_reference(const NoParams&, const KernelArgs& args) {
  const View &ids = args.in[0], &dy = args.in[1], &dtable = args.out[0];
  for (int64_t k = 0; k < dtable.dim(0); ++k)
    for (int64_t i = 0; i < dtable.dim(1); ++i) {
      double sum = 0;
      for (int64_t n = 0; n < ids.dim(0); ++n)
        if (ids.as<int32_t>()[n] == k) sum += double{dy.as<float>()[dy.spec.offset(n, i)]};
      dtable.as<float>()[k * dtable.dim(1) + i] = static_cast<float>(sum);
    }
}

}  // namespace

void register_reference(Registry& r) {
  r.add({.op = "embedding",
         .name = "reference",
         .layout = LayoutClass::any,
         .bit_exact = {.threads = true, .shard = true},
         .make = stateless<NoParams>(embedding_reference)});
  r.add({.op = "embedding_grad",
         .name = "reference",
         .layout = LayoutClass::any,
         .bit_exact = {.threads = true, .shard = false},
         .make = stateless<NoParams>(embedding_grad_reference)});
}

}  // namespace lockstep::embedding
