// SPDX-License-Identifier: Apache-2.0
// Row by row: a row of pixels is repeated across once, then copied down; its gradient is added up from rows.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/resample/highway.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for each target.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/core/dtypes.h"
#include "kernels/core/parallel.h"
#include "kernels/resample/geometry.h"
#include "kernels/resample/kernels.h"
#include "kernels/simd/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::resample {
namespace HWY_NAMESPACE {

namespace simd = lockstep::HWY_NAMESPACE;
namespace hn = hwy::HWY_NAMESPACE;

// Row `row` of the small images: its rows of the large ones.
struct Rows {
  int64_t first, count;
  Rows(const Geometry& g, int64_t row) {
    const int64_t i = row % g.h.small;
    first = row / g.h.small * g.h.large + g.h.first(i), count = g.h.first(i + 1) - g.h.first(i);
  }
};

template <class T>
void repeat(const Geometry& g, int64_t row, const T* x, T* y) {
  const Rows rows(g, row);
  const T* from = x + row * g.small_row();
  T* to = y + rows.first * g.large_row();
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  if constexpr (std::is_same_v<T, float>) {
    const simd::Floats d;
    if (g.v == 1 && g.w.large == 2 * g.w.small)
      for (; i + simd::kVec <= g.w.small; i += simd::kVec) {
        const auto pixels = hn::LoadU(d, from + i);
        hn::StoreInterleaved2(pixels, pixels, d, to + 2 * i);
      }
  }
#endif
  for (int64_t q = g.w.first(i); i < g.w.small; ++i)
    for (const int64_t end = g.w.first(i + 1); q < end; ++q) {
      if (g.v == 1)
        to[q] = from[i];
      else
        std::memcpy(to + q * g.v, from + i * g.v, static_cast<size_t>(g.v) * sizeof(T));
    }
  for (int64_t r = 1; r < rows.count; ++r)
    std::memcpy(to + r * g.large_row(), to, static_cast<size_t>(g.large_row()) * sizeof(T));
}

// Numbers of pixels that have several side by side. dy: of the first of rows x columns pixels.
template <class T>
HWY_INLINE void sum_pixel(const Geometry& g, int64_t rows, int64_t columns, const T* dy, T* dx) {
  for (int64_t k = 0; k < g.v; k += simd::kVec) {
    auto sum = hn::Zero(simd::Floats());
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t s = 0; s < columns; ++s)
        sum = hn::Add(sum, simd::load(dy + r * g.large_row() + s * g.v + k, g.v - k));
    simd::store(sum, dx + k, g.v - k);
  }
}

template <class T>
void sum(const Geometry& g, int64_t row, const T* dy, T* dx) {
  const Rows rows(g, row);
  const T* from = dy + rows.first * g.large_row();
  T* to = dx + row * g.small_row();
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  if constexpr (std::is_same_v<T, float>) {
    const simd::Floats d;
    if (g.v == 1 && g.w.large == 2 * g.w.small)
      for (; i + simd::kVec <= g.w.small; i += simd::kVec) {
        auto all = hn::Zero(d), left = all, right = all;
        for (int64_t r = 0; r < rows.count; ++r) {
          hn::LoadInterleaved2(d, from + r * g.large_row() + 2 * i, left, right);
          all = hn::Add(hn::Add(all, left), right);
        }
        hn::StoreU(all, d, to + i);
      }
  }
#endif
  for (; i < g.w.small; ++i) {
    const int64_t q = g.w.first(i), columns = g.w.first(i + 1) - q;
    if (g.v > 1) {
      sum_pixel(g, rows.count, columns, from + q * g.v, to + i * g.v);
      continue;
    }
    float all = 0;
    for (int64_t r = 0; r < rows.count; ++r)
      for (int64_t s = 0; s < columns; ++s) all += float(from[r * g.large_row() + q + s]);
    to[i] = T(all);
  }
}

void repeat_row(const Geometry& g, int64_t row, const View& x, const View& y) {
  if (x.spec.dtype == DType::bf16)
    repeat(g, row, x.as<bf16>(), y.as<bf16>());
  else
    repeat(g, row, x.as<float>(), y.as<float>());
}

void sum_row(const Geometry& g, int64_t row, const View& dy, const View& dx) {
  if (dy.spec.dtype == DType::bf16)
    sum(g, row, dy.as<bf16>(), dx.as<bf16>());
  else
    sum(g, row, dy.as<float>(), dx.as<float>());
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::resample
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep::resample {
namespace {

HWY_EXPORT(repeat_row);
HWY_EXPORT(sum_row);

constexpr int64_t kGrain = 16 << 10;  // numbers of the larger image that a thread should have at least

template <class F>
void for_rows(const Geometry& g, int threads, F f) {
  const int64_t grain = kGrain * g.h.small / std::max<int64_t>(1, g.h.large * g.large_row());
  parallel_ranges(g.planes * g.h.small, threads, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) f(row);
  });
}

void upsample(const UpsampleNearest2dParams& p, const KernelArgs& args, int threads) {
  const Geometry g(p, args.in[0].spec);
  const auto f = HWY_DYNAMIC_DISPATCH(repeat_row);
  for_rows(g, threads, [&](int64_t row) { f(g, row, args.in[0], args.out[0]); });
}

void gradient(const UpsampleNearest2dParams& p, const KernelArgs& args, int threads) {
  const Geometry g(p, args.out[0].spec);
  const auto f = HWY_DYNAMIC_DISPATCH(sum_row);
  for_rows(g, threads, [&](int64_t row) { f(g, row, args.in[0], args.out[0]); });
}

}  // namespace

void register_highway(Registry& r) {
  const auto add = [&](const char* op, auto make) {
    add_of_one_dtype(r, {.op = op,
                         .name = "highway",
                         .layout = LayoutClass::any,
                         .bit_exact = {.threads = true, .shard = true},
                         .make = make});
  };
  add("upsample_nearest2d", stateless<UpsampleNearest2dParams>(upsample));
  add("upsample_nearest2d_grad", stateless<UpsampleNearest2dParams>(gradient));
}

}  // namespace lockstep::resample
#endif
