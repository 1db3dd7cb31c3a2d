// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/padding.h"
#include "kernels/embedding/embedding.h"
#include "kernels/embedding/kernels.h"

namespace lockstep::embedding {
namespace {

// Number i of the nth id's row.
float& of_id(const View& y, const View& ids, int64_t n, int64_t i) {
  const int64_t tokens = ids.shape().elements_from(1), width = y.dim(y.shape().rank() - 1);
  return y.as<float>()[y.spec.offset(n / tokens, n % tokens * width + i)];
}

void embedding_reference(const NoParams&, const KernelArgs& args) {
  const View &table = args.in[0], &ids = args.in[1], &y = args.out[0];
  for (int64_t n = 0; n < ids.shape().elements(); ++n)
    for (int64_t i = 0; i < table.dim(1); ++i) {
      const int64_t k = ids.as<int32_t>()[n];
      const bool inside = k >= 0 && k < table.dim(0);
      of_id(y, ids, n, i) = inside ? table.as<float>()[k * table.dim(1) + i] : 0;
    }
  zero_padding_lanes(y);
}

void embedding_grad_reference(const NoParams&, const KernelArgs& args) {
  const View &ids = args.in[0], &dy = args.in[1], &dtable = args.out[0];
  for (int64_t k = 0; k < dtable.dim(0); ++k)
    for (int64_t i = 0; i < dtable.dim(1); ++i) {
      double sum = 0;
      for (int64_t n = 0; n < ids.shape().elements(); ++n)
        if (ids.as<int32_t>()[n] == k) sum += double{of_id(dy, ids, n, i)};
      dtable.as<float>()[k * dtable.dim(1) + i] = static_cast<float>(sum);
    }
}

void position_reference(const NoParams&, const KernelArgs& args) {
  const View &x = args.in[0], &table = args.in[1], &y = args.out[0];
  for (int64_t n = 0; n < x.dim(0); ++n)
    for (int64_t i = 0; i < x.shape().elements_from(1); ++i)
      y.as<float>()[y.spec.offset(n, i)] =
          static_cast<float>(double{x.as<float>()[x.spec.offset(n, i)]} + double{table.as<float>()[i]});
  zero_padding_lanes(y);
}

void position_grad_reference(const NoParams&, const KernelArgs& args) {
  const View &dy = args.in[0], &dtable = args.out[0];
  for (int64_t i = 0; i < dtable.shape().elements(); ++i) {
    double sum = 0;
    for (int64_t n = 0; n < dy.dim(0) && i < dy.shape().elements_from(1); ++n)
      sum += double{dy.as<float>()[dy.spec.offset(n, i)]};
    dtable.as<float>()[i] = static_cast<float>(sum);
  }
}

}  // namespace

void register_reference(Registry& r) {
  const auto add = [&](const char* op, auto f, bool shard) {
    r.add({.op = op,
           .name = "reference",
           .layout = LayoutClass::any,
           .bit_exact = {.threads = true, .shard = shard},
           .make = stateless<NoParams>(f)});
  };
  add("embedding", embedding_reference, true);
  add("embedding_grad", embedding_grad_reference, false);
  add("position_embedding", position_reference, true);
  add("position_embedding_grad", position_grad_reference, false);
}

}  // namespace lockstep::embedding
