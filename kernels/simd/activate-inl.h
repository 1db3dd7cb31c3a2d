// SPDX-License-Identifier: Apache-2.0
// Activations of a vector of floats. Included once per Highway target, hence no #pragma once.
#if defined(LOCKSTEP_CORE_ACTIVATE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_CORE_ACTIVATE_INL
#undef LOCKSTEP_CORE_ACTIVATE_INL
#else
#define LOCKSTEP_CORE_ACTIVATE_INL
#endif

#include <hwy/highway.h>
// Its own order: it needs highway.h.
#include <hwy/contrib/math/math-inl.h>

#include "kernels/core/activation.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V sigmoid(D d, V v) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V one = hn::Set(d, 1.0f);
  // exp of at most 87: larger would overflow, and the result is 0 to float precision there anyway.
  return hn::Div(one, hn::Add(one, hn::Exp(d, hn::Min(hn::Neg(v), hn::Set(d, 87.0f)))));
}

// Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: |error| <= 1.5e-7.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V erf(D d, V v) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V one = hn::Set(d, 1.0f), a = hn::Abs(v);
  const V t = hn::Div(one, hn::MulAdd(hn::Set(d, 0.3275911f), a, one));
  V poly = hn::Set(d, 1.061405429f);
  for (float c : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f})
    poly = hn::MulAdd(poly, t, hn::Set(d, c));
  const V tail = hn::Mul(hn::Mul(poly, t), hn::Exp(d, hn::Neg(hn::Mul(a, a))));
  return hn::CopySign(hn::Sub(one, tail), v);
}

template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V activate(D d, Activation activation, V v) {
  namespace hn = hwy::HWY_NAMESPACE;
  switch (activation) {
    case Activation::none:
      return v;
    // Not Max: a NaN must stay one.
    case Activation::relu:
      return hn::IfThenElse(hn::Lt(v, hn::Zero(d)), hn::Zero(d), v);
    case Activation::silu:
      return hn::Mul(v, sigmoid(d, v));
    case Activation::gelu: {
      const V half = hn::Set(d, 0.5f);
      return hn::Mul(hn::Mul(v, half),
                     hn::Add(hn::Set(d, 1.0f), erf(d, hn::Mul(v, hn::Set(d, 0.70710678f)))));
    }
    case Activation::quick_gelu:
      return hn::Mul(v, sigmoid(d, hn::Mul(v, hn::Set(d, kQuickGelu))));
    case Activation::tanh:
      return hn::Tanh(d, v);
    case Activation::sigmoid:
      return sigmoid(d, v);
  }
  return v;
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
