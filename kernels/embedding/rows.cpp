// SPDX-License-Identifier: Apache-2.0
// Rows copied and added whole. A batch's few rows are no work for threads.
#include <algorithm>

#include "kernels/embedding/embedding.h"
#include "kernels/embedding/kernels.h"

namespace lockstep::embedding {
namespace {

void copy_rows(const NoParams&, const KernelArgs& args) {
  const View &table = args.in[0], &ids = args.in[1];
  const int64_t width = table.dim(1);
  for (int64_t n = 0; n < ids.dim(0); ++n) {
    const int64_t k = ids.as<int32_t>()[n];
    float* y = args.out[0].as<float>() + n * width;
    if (k >= 0 && k < table.dim(0))
      std::copy_n(table.as<float>() + k * width, width, y);
    else
      std::fill_n(y, width, 0.0f);
  }
}

void add_rows(const NoParams&, const KernelArgs& args) {
  const View &ids = args.in[0], &dtable = args.out[0];
  const int64_t width = dtable.dim(1);
  std::fill_n(dtable.as<float>(), dtable.shape().elements(), 0.0f);
  for (int64_t n = 0; n < ids.dim(0); ++n) {
    const int64_t k = ids.as<int32_t>()[n];
    if (k < 0 || k >= dtable.dim(0)) continue;
    const float* dy = args.in[1].as<float>() + n * width;
    float* to = dtable.as<float>() + k * width;
    for (int64_t i = 0; i < width; ++i) to[i] += dy[i];
  }
}

}  // namespace

void register_rows(Registry& r) {
  r.add({.op = "embedding",
         .name = "rows",
         .layout = LayoutClass::plain,
         .bit_exact = {.threads = true, .shard = true},
         .make = stateless<NoParams>(copy_rows)});
  r.add({.op = "embedding_grad",
         .name = "rows",
         .layout = LayoutClass::plain,
         .bit_exact = {.threads = true, .shard = false},
         .make = stateless<NoParams>(add_rows)});
}

}  // namespace lockstep::embedding
