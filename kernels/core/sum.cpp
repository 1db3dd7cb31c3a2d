#include "kernels/core/sum.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/core/sum.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D>
HWY_INLINE void sum_vector(D d, float* const* buffers, int count, int64_t i) {
  auto sum = hn::Add(hn::LoadU(d, buffers[0] + i), hn::LoadU(d, buffers[1] + i));
  for (int k = 2; k < count; ++k) sum = hn::Add(sum, hn::LoadU(d, buffers[k] + i));
  for (int k = 0; k < count; ++k) hn::StoreU(sum, d, buffers[k] + i);
}

void sum_all(float* const* buffers, int count, int64_t begin, int64_t end) {
  if (count < 2) return;
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = begin;
  for (; i + lanes <= end; i += lanes) sum_vector(d, buffers, count, i);
  for (; i < end; ++i) sum_vector(hn::CappedTag<float, 1>(), buffers, count, i);
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {

HWY_EXPORT(sum_all);

void sum_into_all(float* const* buffers, int count, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(sum_all)(buffers, count, begin, end);
}

}  // namespace lockstep
#endif
