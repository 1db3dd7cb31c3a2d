// Vectors of floats with Highway, and their loads and stores where fewer are left. Included by sources that
// are compiled once per instruction set.
#if defined(LOCKSTEP_KERNELS_CORE_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_KERNELS_CORE_VECTOR_INL_H_
#undef LOCKSTEP_KERNELS_CORE_VECTOR_INL_H_
#else
#define LOCKSTEP_KERNELS_CORE_VECTOR_INL_H_
#endif

#include <hwy/highway.h>

#include <cstring>

#include "kernels/core/tensor.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;
using Vec = hn::Vec<Floats>;
inline constexpr int kVec = static_cast<int>(hn::MaxLanes(Floats()));
static_assert(kLanes % kVec == 0);

// The first n < kVec floats at p, zeros behind them; reads nothing else.
HWY_INLINE Vec load_part(const float* p, int64_t n) {
  const Floats d;
#if HWY_TARGET <= HWY_AVX2
  return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(n)), d, p);
#else
  HWY_ALIGN float part[kVec] = {};
  std::memcpy(part, p, static_cast<size_t>(n) * sizeof(float));
  return hn::Load(d, part);
#endif
}

HWY_INLINE void store_part(Vec v, float* p, int64_t n) {
  const Floats d;
#if HWY_TARGET <= HWY_AVX2
  hn::BlendedStore(v, hn::FirstN(d, static_cast<size_t>(n)), d, p);
#else
  HWY_ALIGN float part[kVec];
  hn::Store(v, d, part);
  std::memcpy(p, part, static_cast<size_t>(n) * sizeof(float));
#endif
}

// Up to kVec floats.
HWY_INLINE Vec load(const float* p, int64_t n) {
  return n >= kVec ? hn::LoadU(Floats(), p) : load_part(p, n);
}
HWY_INLINE void store(Vec v, float* p, int64_t n) {
  if (n >= kVec)
    hn::StoreU(v, Floats(), p);
  else
    store_part(v, p, n);
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
