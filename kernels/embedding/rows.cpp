// SPDX-License-Identifier: Apache-2.0
// Rows copied and added whole. A batch's few rows are no work for threads, all its positions are.
#include <algorithm>
#include <type_traits>

#include "kernels/core/dtypes.h"
#include "kernels/core/parallel.h"

#include "kernels/embedding/embedding.h"
#include "kernels/embedding/kernels.h"

namespace lockstep::embedding {
namespace {

void copy_rows(const NoParams&, const KernelArgs& args) {
  const View &table = args.in[0], &ids = args.in[1];
  const int64_t width = table.dim(1);
  for (int64_t n = 0; n < ids.shape().elements(); ++n) {
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
  for (int64_t n = 0; n < ids.shape().elements(); ++n) {
    const int64_t k = ids.as<int32_t>()[n];
    if (k < 0 || k >= dtable.dim(0)) continue;
    const float* dy = args.in[1].as<float>() + n * width;
    float* to = dtable.as<float>() + k * width;
    for (int64_t i = 0; i < width; ++i) to[i] += dy[i];
  }
}

constexpr int64_t kGrain = 16384;  // numbers that are worth a thread

void add_positions(const NoParams&, const KernelArgs& args, int threads) {
  const View &x = args.in[0], &y = args.out[0];
  const auto* table = args.in[1].as<float>();
  const int64_t count = x.shape().elements_from(1);
  typed(x, [&](auto* from) {
    using T = std::remove_pointer_t<decltype(from)>;
    T* to = y.as<T>();
    parallel_ranges(x.dim(0), threads, divide_up(kGrain, std::max<int64_t>(1, count)),
                    [&](int64_t begin, int64_t end) {
                      for (int64_t n = begin; n < end; ++n)
                        for (int64_t i = 0; i < count; ++i)
                          to[n * count + i] = T(float(from[n * count + i]) + table[i]);
                    });
  });
}

// In stretches of numbers, whose sums stay in the cache while the samples pass by.
void sum_positions(const NoParams&, const KernelArgs& args, int threads) {
  const View& dy = args.in[0];
  auto* dtable = args.out[0].as<float>();
  const int64_t count = dy.shape().elements_from(1);
  std::fill_n(dtable, args.out[0].shape().elements(), 0.0f);
  typed(dy, [&](const auto* from) {
    parallel_ranges(count, threads, divide_up(kGrain, std::max<int64_t>(1, dy.dim(0))),
                    [&](int64_t begin, int64_t end) {
                      constexpr int64_t kStretch = 4096;
                      for (int64_t first = begin; first < end; first += kStretch) {
                        const int64_t last = std::min(first + kStretch, end);
                        for (int64_t n = 0; n < dy.dim(0); ++n)
                          for (int64_t i = first; i < last; ++i) dtable[i] += float(from[n * count + i]);
                      }
                    });
  });
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
  for (DType dtype : {DType::f32, DType::bf16}) {
    r.add({.op = "position_embedding",
           .name = "rows",
           .layout = LayoutClass::plain,
           .dtype = dtype,
           .bit_exact = {.threads = true, .shard = true},
           .make = [=](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             if (q.in[0].dtype != dtype || q.in[1].dtype != DType::f32 || q.out[0].dtype != dtype)
               return nullptr;
             return stateless<NoParams>(add_positions)(q);
           }});
    r.add({.op = "position_embedding_grad",
           .name = "rows",
           .layout = LayoutClass::plain,
           .dtype = dtype,
           .bit_exact = {.threads = true, .shard = false},
           .make = [=](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             if (q.in[0].dtype != dtype || q.out[0].dtype != DType::f32) return nullptr;
             return stateless<NoParams>(sum_positions)(q);
           }});
  }
}

}  // namespace lockstep::embedding
