// SPDX-License-Identifier: Apache-2.0
// Max-shifted softmax sums with Highway, for 16 samples side by side (lanes) or one sample in a row (plain).
//
// Highway's Exp is within 1 ulp and Log within 4 of the true value; both lose NaN, which is put back here.
// They use fma where there is one: bits differ between instruction sets (not between thread counts).
#if defined(LOCKSTEP_KERNELS_LOSS_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_KERNELS_LOSS_SOFTMAX_INL_H_
#undef LOCKSTEP_KERNELS_LOSS_SOFTMAX_INL_H_
#else
#define LOCKSTEP_KERNELS_LOSS_SOFTMAX_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>

#include <limits>

#include "kernels/simd/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

using Mask = hn::Mask<Floats>;
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

HWY_INLINE Vec set(float x) { return hn::Set(Floats(), x); }

// exp(x) for x up to 88; NaN stays NaN.
HWY_INLINE Vec exp_of(Vec x) {
  const Floats d;
  const Vec e = hn::Exp(d, hn::Max(x, set(-150)));  // 0 below -104; keeps -inf from the integer conversion
  return hn::IfThenElse(hn::Eq(x, x), e, x);
}

// Highway's Ne is false for NaN on AVX2 and AVX-512.
HWY_INLINE Mask is_nan(Vec x) { return hn::Not(hn::Eq(x, x)); }

// kVec samples, classes 16 floats apart. For each: the maximum, whether an x is NaN, and the first class that
// has the maximum.
struct LanesMaximum {
  Vec most, where;
  Mask any_nan;
};
HWY_INLINE LanesMaximum lanes_maximum(const float* x, int64_t classes) {
  const Floats d;
  LanesMaximum r{hn::LoadU(d, x), hn::Zero(d), is_nan(hn::LoadU(d, x))};
  for (int64_t c = 1; c < classes; ++c) {
    const Vec v = hn::LoadU(d, x + c * kLanes);
    const Mask above = hn::Gt(v, r.most);
    r.most = hn::IfThenElse(above, v, r.most);
    r.where = hn::IfThenElse(above, set(static_cast<float>(c)), r.where);
    r.any_nan = hn::Or(r.any_nan, is_nan(v));
  }
  return r;
}

// Sum of exp(x - most): NaN where an x is NaN or the maximum is infinite. The terms are kept in `terms`
// (spaced as x) unless it is null.
HWY_INLINE Vec lanes_sum_exp(const float* x, int64_t classes, const LanesMaximum& m, float* terms) {
  const Floats d;
  Vec sum = hn::Zero(d);
  for (int64_t c = 0; c < classes; ++c) {
    const Vec e = exp_of(hn::Sub(hn::LoadU(d, x + c * kLanes), m.most));
    if (terms != nullptr) hn::StoreU(e, d, terms + c * kLanes);
    sum = hn::Add(sum, e);
  }
  return sum;
}

// The lanes of vector v that hold samples.
HWY_INLINE Mask lanes_used(int v, int64_t used) {
  return hn::Lt(hn::Iota(Floats(), static_cast<float>(v * kVec)), set(static_cast<float>(used)));
}

// One sample, classes in a row.
struct RowMaximum {
  float most;
  bool any_nan;
};
HWY_INLINE RowMaximum row_maximum(const float* x, int64_t classes) {
  const Floats d;
  Vec most = set(-kInfinity);
  Mask any_nan = is_nan(most);
  int64_t c = 0;
  for (; c + kVec <= classes; c += kVec) {
    const Vec v = hn::LoadU(d, x + c);
    most = hn::Max(most, v);
    any_nan = hn::Or(any_nan, is_nan(v));
  }
  if (c < classes) {
    const Mask rest = hn::FirstN(d, static_cast<size_t>(classes - c));
    const Vec v = hn::IfThenElse(rest, load_part(x + c, classes - c), set(-kInfinity));
    most = hn::Max(most, v);
    any_nan = hn::Or(any_nan, is_nan(v));
  }
  // Highway 1.2's fallback finds the least finite number among lanes of -inf.
  const bool none = hn::AllTrue(d, hn::Eq(most, set(-kInfinity)));
  return {none ? -kInfinity : hn::GetLane(hn::MaxOfLanes(d, most)), !hn::AllFalse(d, any_nan)};
}

HWY_INLINE float row_sum_exp(const float* x, int64_t classes, const RowMaximum& m, float* terms) {
  const Floats d;
  const Vec most = set(m.most);
  Vec sum = hn::Zero(d);
  int64_t c = 0;
  for (; c + kVec <= classes; c += kVec) {
    const Vec e = exp_of(hn::Sub(hn::LoadU(d, x + c), most));
    if (terms != nullptr) hn::StoreU(e, d, terms + c);
    sum = hn::Add(sum, e);
  }
  if (c < classes) {
    const Vec e = exp_of(hn::Sub(load_part(x + c, classes - c), most));
    if (terms != nullptr) store_part(e, terms + c, classes - c);
    sum = hn::Add(sum, hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(classes - c)), e));
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

HWY_INLINE float row_sum(const float* x, int64_t classes, float center) {
  const Floats d;
  Vec sum = hn::Zero(d);
  int64_t c = 0;
  for (; c + kVec <= classes; c += kVec) sum = hn::Add(sum, hn::Sub(hn::LoadU(d, x + c), set(center)));
  if (c < classes) {
    const Mask rest = hn::FirstN(d, static_cast<size_t>(classes - c));
    sum = hn::Add(sum, hn::IfThenElseZero(rest, hn::Sub(load_part(x + c, classes - c), set(center))));
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
