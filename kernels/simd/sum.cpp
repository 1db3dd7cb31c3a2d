// SPDX-License-Identifier: Apache-2.0
#include "kernels/simd/sum.h"

#include <algorithm>
#include <bit>

#include "kernels/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/sum.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kDepth = 16;  // of the tree: up to 65,536 buffers
constexpr int64_t kBlock = 256;

// a + b, written to each of `count` arrays.
void add(const float* a, const float* b, float* const* to, int count, int64_t offset, int64_t n) {
  const auto part = [&](auto d, int64_t i) HWY_ATTR {
    const auto sum = hn::Add(hn::LoadU(d, a + i), hn::LoadU(d, b + i));
    for (int k = 0; k < count; ++k) hn::StoreU(sum, d, to[k] + offset + i);
  };
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) part(d, i);
  for (; i < n; ++i) part(hn::CappedTag<float, 1>(), i);
}

// What is left of a node: the largest power of two below the count.
int half_of(int count) { return static_cast<int>(std::bit_floor(static_cast<unsigned>(count - 1))); }

// The sum of elements [offset, offset + n) over buffers [first, first + count): where it lies, which is
// scratch[0] unless there is but one.
const float* subtree(float* const* buffers, int first, int count, int64_t offset, int64_t n,
                     float (*scratch)[kBlock]) {
  if (count == 1) return buffers[first] + offset;
  const int half = half_of(count);
  const float* a = subtree(buffers, first, half, offset, n, scratch);
  const float* b = subtree(buffers, first + half, count - half, offset, n, scratch + 1);
  float* to = scratch[0];
  add(a, b, &to, 1, 0, n);
  return to;
}

void sum_all(float* const* buffers, int count, int64_t begin, int64_t end) {
  if (count < 2) return;
  const int half = half_of(count);
  alignas(64) float scratch[kDepth][kBlock];
  for (int64_t i = begin; i < end; i += kBlock) {
    const int64_t n = std::min(kBlock, end - i);
    const float* a = subtree(buffers, 0, half, i, n, scratch);
    const float* b = subtree(buffers, half, count - half, i, n, scratch + 1);
    add(a, b, buffers, count, i, n);
  }
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {

HWY_EXPORT(sum_all);

void sum_into_all(float* const* buffers, int count, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(sum_all)(buffers, count, begin, end);
}

void sum_parts(const float* parts, int64_t stride, int64_t count, int64_t n, float* to, int threads) {
  parallel_ranges(n, threads, 4096, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      float sum = parts[i];
      for (int64_t part = 1; part < count; ++part) sum += parts[part * stride + i];
      to[i] = sum;
    }
  });
}

}  // namespace lockstep
#endif
