// SPDX-License-Identifier: Apache-2.0
// Vectorised functions on float, with errors measured against double (tests/kernels/elementwise_test.cpp).
// NaN in, NaN out. Included by sources that are compiled once for each instruction set (foreach_target.h),
// hence the toggling guard.
#if defined(LOCKSTEP_ELEMENTWISE_MATH_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_ELEMENTWISE_MATH_INL_H
#undef LOCKSTEP_ELEMENTWISE_MATH_INL_H
#else
#define LOCKSTEP_ELEMENTWISE_MATH_INL_H
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <numbers>

HWY_BEFORE_NAMESPACE();
namespace lockstep::elementwise {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D, class V>
HWY_INLINE V keep_nan(D, V x, V y) {
  return hn::IfThenElse(hn::Eq(x, x), y, x);
}

// s = 1/(1 + exp(-x)) and 1 - s = exp(-x) s, which is exact where s is nearly 1. Relative error of s < 3e-7;
// below -88 it is 6e-39 rather than 0.
template <class V>
struct Logistic {
  V s, rest;
};

template <class D, class V>
HWY_INLINE Logistic<V> logistic(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  const V e = hn::Exp(d, hn::Min(hn::Neg(x), hn::Set(d, 88.0f)));
  const V s = keep_nan(d, x, hn::Div(one, hn::Add(one, e)));
  return {s, hn::Mul(e, s)};
}

// Relative error < 3e-7.
template <class D, class V>
HWY_INLINE V tanh(D d, V x) {
  return keep_nan(d, x, hn::Tanh(d, hn::Max(hn::Min(x, hn::Set(d, 20.0f)), hn::Set(d, -20.0f))));
}

// The standard normal distribution: cdf, and the density without its factor 1/sqrt(2 pi).
template <class V>
struct Normal {
  V cdf, bell;  // bell = exp(-x^2/2)
};

// Phi(-x) = exp(-x^2/2) t P(t), t = 1/(1 + 0.265 x), x >= 0. P of degree 8 is the Chebyshev fit to
// exp(x^2/2) Phi(-x) / t on x in [0, 14]; beyond, exp is 0. Relative error of the fit 7e-8; of
// cdf it grows with x^2 for negative x, since x^2/2 is rounded (1e-6 at -5).
template <class D, class V>
HWY_INLINE Normal<V> normal(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  const V z = hn::Min(hn::Abs(x), hn::Set(d, 20.0f));
  const V t = hn::Div(one, hn::MulAdd(z, hn::Set(d, 0.265f), one));
  V p = hn::Set(d, 0.0313179329249f);
  p = hn::MulAdd(p, t, hn::Set(d, -0.146638579241f));
  p = hn::MulAdd(p, t, hn::Set(d, 0.222774999009f));
  p = hn::MulAdd(p, t, hn::Set(d, -0.12200599887f));
  p = hn::MulAdd(p, t, hn::Set(d, 0.141823237051f));
  p = hn::MulAdd(p, t, hn::Set(d, 0.0586801672813f));
  p = hn::MulAdd(p, t, hn::Set(d, 0.103113742349f));
  p = hn::MulAdd(p, t, hn::Set(d, 0.105189652719f));
  p = hn::MulAdd(p, t, hn::Set(d, 0.105744853675f));
  const V bell = hn::Exp(d, hn::Mul(hn::Mul(z, z), hn::Set(d, -0.5f)));
  const V tail = hn::Mul(bell, hn::Mul(t, p));
  const V cdf = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(one, tail));
  return {keep_nan(d, x, cdf), keep_nan(d, x, bell)};
}

// The slope of x cdf(x), the exact GELU.
template <class D, class V>
HWY_INLINE V gelu_slope(D d, V x, const Normal<V>& of_x) {
  const V root = hn::Set(d, static_cast<float>(std::numbers::inv_sqrtpi / std::numbers::sqrt2));
  return hn::MulAdd(hn::Mul(x, root), of_x.bell, of_x.cdf);
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::elementwise
HWY_AFTER_NAMESPACE();

#endif
