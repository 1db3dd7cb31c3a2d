// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/tiles.h"

#include <cmath>
#include <limits>

#include "kernels/simd/gather_product.h"
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

// Of G vectors of columns at once, so that their chains of maxima and sums run beside each other.
template <int G>
void softmax_columns(float* scores, int64_t others, int64_t columns, Vec by, const Softmax& state,
                     int64_t i) {
  const Floats d;
  Vec most[G], shrink[G], sum[G];
  for (int k = 0; k < G; ++k) most[k] = hn::LoadU(d, state.most + i + k * kVec);
  for (int k = 0; k < G; ++k) shrink[k] = most[k];
  float* s = scores + i;
  for (int64_t j = 0; j < others; ++j, s += columns) {
    LOCKSTEP_UNROLL for (int k = 0; k < G; ++k) {
      most[k] = hn::Max(most[k], hn::Mul(hn::LoadU(d, s + k * kVec), by));
    }
  }
  for (int k = 0; k < G; ++k) shrink[k] = exp_of(hn::Sub(shrink[k], most[k]));
  for (int k = 0; k < G; ++k) sum[k] = hn::Zero(d);
  s = scores + i;
  for (int64_t j = 0; j < others; ++j, s += columns) {
    LOCKSTEP_UNROLL for (int k = 0; k < G; ++k) {
      const Vec e = exp_of(hn::MulSub(hn::LoadU(d, s + k * kVec), by, most[k]));
      hn::StoreU(e, d, s + k * kVec);
      sum[k] = hn::Add(sum[k], e);
    }
  }
  for (int k = 0; k < G; ++k) {
    const int64_t at = i + k * kVec;
    hn::StoreU(most[k], d, state.most + at);
    hn::StoreU(shrink[k], d, state.shrink + at);
    hn::StoreU(hn::MulAdd(hn::LoadU(d, state.sum + at), shrink[k], sum[k]), d, state.sum + at);
  }
}

}  // namespace

void softmax_tile_of(float* scores, int64_t others, int64_t columns, float scale, const Softmax& state) {
  const Vec by = set(scale);
  int64_t i = 0;
  for (; i + 4 * kVec <= columns; i += 4 * kVec) softmax_columns<4>(scores, others, columns, by, state, i);
  for (; i + 2 * kVec <= columns; i += 2 * kVec) softmax_columns<2>(scores, others, columns, by, state, i);
  for (; i < columns; i += kVec) softmax_columns<1>(scores, others, columns, by, state, i);
}

void scale_columns_of(float* x, int64_t rows, int64_t columns, const float* factor) {
  const Floats d;
  for (int64_t r = 0; r < rows; ++r, x += columns)
    for (int64_t i = 0; i < columns; i += kVec)
      hn::StoreU(hn::Mul(hn::LoadU(d, x + i), hn::LoadU(d, factor + i)), d, x + i);
}

void gradient_tile_of(float* scores, float* dp, int64_t others, int64_t columns, float scale,
                      const float* lse, const float* delta) {
  const Floats d;
  const Vec by = set(scale);
  for (int64_t j = 0; j < others; ++j)
    for (int64_t i = 0; i < columns; i += kVec) {
      float *s = scores + j * columns + i, *g = dp + j * columns + i;
      const Vec p = exp_of(hn::MulSub(hn::LoadU(d, s), by, hn::LoadU(d, lse + i)));
      hn::StoreU(p, d, s);
      hn::StoreU(hn::Mul(hn::Mul(p, hn::Sub(hn::LoadU(d, g), hn::LoadU(d, delta + i))), by), d, g);
    }
}

void column_dots_of(const float* a, const float* b, int64_t rows, int64_t columns, float* sum) {
  const Floats d;
  for (int64_t i = 0; i < columns; i += kVec) {
    Vec total = hn::Zero(d);
    for (int64_t r = 0; r < rows; ++r)
      total = hn::MulAdd(hn::LoadU(d, a + r * columns + i), hn::LoadU(d, b + r * columns + i), total);
    hn::StoreU(total, d, sum + i);
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

void softmax_tile(float* scores, int64_t others, int64_t columns, float scale, const Softmax& s) {
  HWY_DYNAMIC_DISPATCH(softmax_tile_of)(scores, others, columns, scale, s);
}
void scale_columns(float* x, int64_t rows, int64_t columns, const float* factor) {
  HWY_DYNAMIC_DISPATCH(scale_columns_of)(x, rows, columns, factor);
}
void gradient_tile(float* scores, float* dp, int64_t others, int64_t columns, float scale, const float* lse,
                   const float* delta) {
  HWY_DYNAMIC_DISPATCH(gradient_tile_of)(scores, dp, others, columns, scale, lse, delta);
}
void column_dots(const float* a, const float* b, int64_t rows, int64_t columns, float* sum) {
  HWY_DYNAMIC_DISPATCH(column_dots_of)(a, b, rows, columns, sum);
}

void mask_causal(float* scores, int64_t first_key, int64_t keys, int64_t first_query, int64_t columns) {
  for (int64_t j = 0; j < keys; ++j)
    std::fill_n(scores + j * columns, std::clamp<int64_t>(first_key + j - first_query, 0, columns),
                -std::numeric_limits<float>::infinity());
}

void softmax_finish(int64_t columns, const Softmax& s) {
  for (int64_t i = 0; i < columns; ++i) {
    s.most[i] += std::log(s.sum[i]);
    s.sum[i] = 1 / s.sum[i];
  }
}

void load_tile(const Tokens<const float>& x, int64_t first, int64_t count, int64_t width, float* tile,
               int64_t columns) {
  const float* from = x.at(first);
  if (x.channel == 1) {
    transpose(from, x.token, count, width, tile, columns);
  } else {
    for (int64_t c = 0; c < width; ++c) std::copy_n(from + c * x.channel, count, tile + c * columns);
  }
  if (count == columns) return;
  for (int64_t c = 0; c < width; ++c) std::fill_n(tile + c * columns + count, columns - count, 0.0f);
}

void store_tile(const float* tile, int64_t columns, const Tokens<float>& x, int64_t first, int64_t count,
                int64_t width) {
  float* to = x.at(first);
  if (x.channel == 1) {
    transpose(tile, columns, width, count, to, x.token);
  } else {
    for (int64_t c = 0; c < width; ++c) std::copy_n(tile + c * columns, count, to + c * x.channel);
  }
}

void tile_product(const TileProduct& p) {
  static constexpr int64_t kPlaces[] = {0, 16, 32, 48};
  static constexpr GatherTap kOneTap[] = {{}};
  static_assert(kTileColumns == 4 * kLanes);
  GatherProblem g;
  g.x = p.x;
  g.w = p.w;
  g.y = p.y;
  g.x_at = g.y_at = std::span(kPlaces, static_cast<size_t>(p.columns / kLanes));
  g.taps = kOneTap;
  g.channels = p.sums;
  g.x_channel = g.y_output = p.columns;
  g.w_channel = p.w_sum;
  g.outputs = p.outputs;
  g.w_output = p.w_output;
  g.add_to_y = p.add;
  gather_product(g, 1);
}

}  // namespace lockstep
#endif
