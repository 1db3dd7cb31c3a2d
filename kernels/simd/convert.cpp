// SPDX-License-Identifier: Apache-2.0
#include "kernels/simd/convert.h"

#include "kernels/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/convert.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for each target.
#include "kernels/simd/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

template <class From, class To>
HWY_INLINE void cast_range(const From* from, To* to, int64_t n) {
  for (int64_t i = 0; i < n; i += kVec) store(load(from + i, n - i), to + i, n - i);
}

void round_range(const float* from, bf16* to, int64_t n) { cast_range(from, to, n); }
void widen_range(const bf16* from, float* to, int64_t n) { cast_range(from, to, n); }

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {

HWY_EXPORT(round_range);
HWY_EXPORT(widen_range);

void convert(const View& from, const View& to, int threads) {
  constexpr int64_t kGrain = 32768 / kLanes;  // groups of 16 numbers that are worth a thread
  const int64_t n = from.spec.stored_elements();
  parallel_ranges((n + kLanes - 1) / kLanes, threads, kGrain, [&](int64_t first, int64_t last) {
    const int64_t begin = first * kLanes, count = std::min(last * kLanes, n) - begin;
    if (from.spec.dtype == DType::f32)
      HWY_DYNAMIC_DISPATCH(round_range)(from.as<float>() + begin, to.as<bf16>() + begin, count);
    else
      HWY_DYNAMIC_DISPATCH(widen_range)(from.as<bf16>() + begin, to.as<float>() + begin, count);
  });
}

}  // namespace lockstep
#endif
