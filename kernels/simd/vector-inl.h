// SPDX-License-Identifier: Apache-2.0
// Vectors of floats with Highway, and their loads and stores where fewer are left. Included by sources that
// are compiled once per instruction set.
#if defined(LOCKSTEP_KERNELS_CORE_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_KERNELS_CORE_VECTOR_INL_H_
#undef LOCKSTEP_KERNELS_CORE_VECTOR_INL_H_
#else
#define LOCKSTEP_KERNELS_CORE_VECTOR_INL_H_
#endif

#include <hwy/highway.h>

// The fallback (for processors without AVX2) computes the same bits as the others and is not the one that anybody
// waits for; optimised like them it would be half of what these sources cost to compile.
#if HWY_TARGET == HWY_STATIC_TARGET && !defined(HWY_TARGET_STR) && HWY_COMPILER_GCC_ACTUAL
#undef HWY_BEFORE_NAMESPACE
#undef HWY_AFTER_NAMESPACE
#define HWY_BEFORE_NAMESPACE() _Pragma("GCC push_options") _Pragma("GCC optimize(\"O1\")") static_assert(true)
#define HWY_AFTER_NAMESPACE() _Pragma("GCC pop_options") static_assert(true)
#endif

#include <cstring>

#include "kernels/core/bf16.h"
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

HWY_INLINE Vec load(const float* p) { return hn::LoadU(Floats(), p); }
HWY_INLINE void store(Vec v, float* p) { hn::StoreU(v, Floats(), p); }
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

// bf16, rounded as bf16.h says: the library's own conversion truncates. D: a tag of floats.
template <class D>
using HalvesOf = hn::Rebind<uint16_t, D>;
template <class D>
HWY_INLINE hn::Vec<D> widened(D d, hn::Vec<HalvesOf<D>> h) {
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(hn::Rebind<uint32_t, D>(), h)));
}
template <class D>
HWY_INLINE hn::Vec<HalvesOf<D>> rounded(D, hn::Vec<D> v) {
  const hn::Rebind<uint32_t, D> d;
  const auto bits = hn::BitCast(d, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1));
  const auto up = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(d, 0x7FFF))));
  const auto nan = hn::RebindMask(d, hn::IsNaN(v));
  const hn::Rebind<int32_t, D> di;  // below 2^16: no saturation
  return hn::DemoteTo(HalvesOf<D>(), hn::BitCast(di, hn::IfThenElse(nan, hn::Set(d, 0x7FFF), up)));
}
inline const uint16_t* bits_of(const bf16* p) { return reinterpret_cast<const uint16_t*>(p); }
inline uint16_t* bits_of(bf16* p) { return reinterpret_cast<uint16_t*>(p); }

// A vector of tag `d` from and to either type.
template <class D>
HWY_INLINE hn::Vec<D> load_as(D d, const float* p) {
  return hn::LoadU(d, p);
}
template <class D>
HWY_INLINE hn::Vec<D> load_as(D d, const bf16* p) {
  return widened(d, hn::LoadU(HalvesOf<D>(), bits_of(p)));
}
template <class D>
HWY_INLINE void store_as(D d, hn::Vec<D> v, float* p) {
  hn::StoreU(v, d, p);
}
template <class D>
HWY_INLINE void store_as(D d, hn::Vec<D> v, bf16* p) {
  hn::StoreU(rounded(d, v), HalvesOf<D>(), bits_of(p));
}

// As for floats.
using Halves = HalvesOf<Floats>;
HWY_INLINE Vec load_part(const bf16* p, int64_t n) {
  HWY_ALIGN uint16_t part[kVec] = {};
  std::memcpy(part, p, static_cast<size_t>(n) * sizeof(bf16));
  return widened(Floats(), hn::Load(Halves(), part));
}
HWY_INLINE void store_part(Vec v, bf16* p, int64_t n) {
  HWY_ALIGN uint16_t part[kVec];
  hn::Store(rounded(Floats(), v), Halves(), part);
  std::memcpy(p, part, static_cast<size_t>(n) * sizeof(bf16));
}
HWY_INLINE Vec load(const bf16* p) { return load_as(Floats(), p); }
HWY_INLINE void store(Vec v, bf16* p) { store_as(Floats(), v, p); }
HWY_INLINE Vec load(const bf16* p, int64_t n) { return n >= kVec ? load(p) : load_part(p, n); }
HWY_INLINE void store(Vec v, bf16* p, int64_t n) {
  if (n >= kVec)
    store(v, p);
  else
    store_part(v, p, n);
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
