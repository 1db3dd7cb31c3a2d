// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/tiles.h"

#include <cmath>
#include <limits>

#include "kernels/simd/transpose.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/tiles.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h
#include "kernels/loss/softmax-inl.h"
#include "kernels/simd/register_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

namespace {

// exp(x) for x <= 0, or above by rounding: within 0.9 ulp with fused multiply-add; 0 below -87, NaN for NaN. A half as many
// instructions as Highway's, which takes any x. x = n ln 2 + r, exp(r) by its minimax polynomial of degree 6 (relative error
// 3e-9 over |r| <= ln 2 / 2), whose first two coefficients are 1.
HWY_INLINE Vec exp_of_difference(Vec x) {
  const Floats d;
  const hn::RebindToSigned<Floats> integers;
  const Vec magic = set(12582912 + 127);  // whose last bit is worth 1: the sum's lowest bits are n + 127
  const Vec biased = hn::MulAdd(x, set(1.44269504f), magic);
  const Vec n = hn::Sub(biased, magic);
  const Vec r =
      hn::MulAdd(n, set(2.12194440e-4f), hn::NegMulAdd(n, set(0.693359375f), x));  // ln 2 in two parts
  Vec e = hn::MulAdd(set(0.00138145988f), r, set(0.00836871658f));
  e = hn::MulAdd(e, r, set(0.0416683890f));
  e = hn::MulAdd(e, r, set(0.166665211f));
  e = hn::MulAdd(e, r, set(0.499999940f));
  e = hn::MulAdd(e, r, set(1));
  e = hn::MulAdd(e, r, set(1));
  const Vec power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(integers, biased)));
  return hn::IfThenZeroElse(hn::Lt(x, set(-87)), hn::Mul(e, power));
}

constexpr int kPanelVecs = static_cast<int>(kPanel) / kVec;
// Vectors of columns at once, so that their chains of maxima and sums run beside each other.
constexpr int kGroup = kPanelVecs < 4 ? kPanelVecs : 4;

void softmax_columns(float* scores, int64_t others, Vec by, const Softmax& state, int64_t i) {
  const Floats d;
  Vec most[kGroup], shrink[kGroup], sum[kGroup];
  for (int k = 0; k < kGroup; ++k) most[k] = load(state.most + i + k * kVec);
  for (int k = 0; k < kGroup; ++k) shrink[k] = most[k];
  float* s = scores + i;
  for (int64_t j = 0; j < others; ++j, s += kPanel) {
    LOCKSTEP_UNROLL for (int k = 0; k < kGroup; ++k) {
      most[k] = hn::Max(most[k], hn::Mul(load(s + k * kVec), by));
    }
  }
  for (int k = 0; k < kGroup; ++k) shrink[k] = exp_of_difference(hn::Sub(shrink[k], most[k]));
  for (int k = 0; k < kGroup; ++k) sum[k] = hn::Zero(d);
  s = scores + i;
  for (int64_t j = 0; j < others; ++j, s += kPanel) {
    LOCKSTEP_UNROLL for (int k = 0; k < kGroup; ++k) {
      const Vec e = exp_of_difference(hn::MulSub(load(s + k * kVec), by, most[k]));
      store(e, s + k * kVec);
      sum[k] = hn::Add(sum[k], e);
    }
  }
  for (int k = 0; k < kGroup; ++k) {
    const int64_t at = i + k * kVec;
    store(most[k], state.most + at);
    store(shrink[k], state.shrink + at);
    store(hn::MulAdd(load(state.sum + at), shrink[k], sum[k]), state.sum + at);
  }
}

}  // namespace

void softmax_tile_of(float* scores, int64_t others, float scale, const Softmax& state) {
  for (int64_t i = 0; i < kPanel; i += kGroup * kVec) softmax_columns(scores, others, set(scale), state, i);
}

void scale_columns_of(float* x, int64_t rows, const float* factor) {
  Vec by[kPanelVecs];
  for (int k = 0; k < kPanelVecs; ++k) by[k] = load(factor + k * kVec);
  for (int64_t r = 0; r < rows; ++r, x += kPanel) LOCKSTEP_UNROLL for (int k = 0; k < kPanelVecs; ++k) {
      store(hn::Mul(load(x + k * kVec), by[k]), x + k * kVec);
    }
}

void gradient_tile_of(float* scores, float* dp, int64_t others, float scale, const float* lse,
                      const float* delta) {
  const Vec by = set(scale);
  for (int64_t j = 0; j < others; ++j)
    for (int64_t i = 0; i < kPanel; i += kVec) {
      float *s = scores + j * kPanel + i, *g = dp + j * kPanel + i;
      const Vec p = exp_of_difference(hn::MulSub(load(s), by, load(lse + i)));
      store(p, s);
      store(hn::Mul(hn::Mul(p, hn::Sub(load(g), load(delta + i))), by), g);
    }
}

void column_dots_of(const float* a, const float* b, int64_t rows, float* sum) {
  for (int64_t i = 0; i < kPanel; i += kVec) {
    Vec total = hn::Zero(Floats());
    for (int64_t r = 0; r < rows; ++r)
      total = hn::MulAdd(load(a + r * kPanel + i), load(b + r * kPanel + i), total);
    store(total, sum + i);
  }
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {

HWY_EXPORT(softmax_tile_of);
HWY_EXPORT(scale_columns_of);
HWY_EXPORT(gradient_tile_of);
HWY_EXPORT(column_dots_of);

void softmax_tile(float* scores, int64_t others, float scale, const Softmax& s) {
  HWY_DYNAMIC_DISPATCH(softmax_tile_of)(scores, others, scale, s);
}
void scale_columns(float* x, int64_t rows, const float* factor) {
  HWY_DYNAMIC_DISPATCH(scale_columns_of)(x, rows, factor);
}
void gradient_tile(float* scores, float* dp, int64_t others, float scale, const float* lse,
                   const float* delta) {
  HWY_DYNAMIC_DISPATCH(gradient_tile_of)(scores, dp, others, scale, lse, delta);
}
void column_dots(const float* a, const float* b, int64_t rows, float* sum) {
  HWY_DYNAMIC_DISPATCH(column_dots_of)(a, b, rows, sum);
}

void mask_causal(float* scores, int64_t first_key, int64_t keys, int64_t first_query) {
  for (int64_t j = 0; j < keys; ++j)
    std::fill_n(scores + j * kPanel, std::clamp<int64_t>(first_key + j - first_query, 0, kPanel),
                -std::numeric_limits<float>::infinity());
}

void softmax_finish(const Softmax& s) {
  for (int64_t i = 0; i < kPanel; ++i) {
    s.most[i] += std::log(s.sum[i]);
    s.sum[i] = 1 / s.sum[i];
  }
}

void load_tile(const Tokens<const float>& x, int64_t first, int64_t count, int64_t width, float* tile) {
  const float* from = x.at(first);
  if (x.channel == 1) {
    transpose(from, x.token, count, width, tile, kPanel);
  } else {
    for (int64_t c = 0; c < width; ++c) std::copy_n(from + c * x.channel, count, tile + c * kPanel);
  }
  if (count == kPanel) return;
  for (int64_t c = 0; c < width; ++c) std::fill_n(tile + c * kPanel + count, kPanel - count, 0.0f);
}

void store_tile(const float* tile, const Tokens<float>& x, int64_t first, int64_t count, int64_t width) {
  float* to = x.at(first);
  if (x.channel == 1) {
    transpose(tile, kPanel, width, count, to, x.token);
  } else {
    for (int64_t c = 0; c < width; ++c) std::copy_n(tile + c * kPanel, count, to + c * x.channel);
  }
}

void product_over_channels(const Tokens<const float>& x, int64_t first, int64_t count, int64_t width,
                           const float* tile, float* y) {
  multiply({.a = {x.at(first), 0, x.token},
            .a_step = x.channel,
            .b = {tile, 0, kPanel},
            .c = {y, 0, kPanel},
            .rows = count,
            .depth = width});
}

void product_over_tokens(const Tokens<const float>& x, int64_t first, int64_t count, int64_t width,
                         const float* weights, float* y, bool add) {
  multiply({.a = {x.at(first), 0, x.channel},
            .a_step = x.token,
            .b = {weights, 0, kPanel},
            .c = {y, 0, kPanel},
            .rows = width,
            .depth = count,
            .add = add});
}

}  // namespace lockstep
#endif
