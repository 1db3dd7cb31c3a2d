// SPDX-License-Identifier: Apache-2.0
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv2d/weight_grad_tile.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <array>
#include <utility>

#include "kernels/conv2d/weight_grad_tile.h"
#include "kernels/core/tensor.h"
#include "kernels/simd/register_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// Held in registers beside the sums: O vectors of dy and one of x.
constexpr bool fits(int o, int t) { return o * t + o + 1 <= kRegisters; }

template <int O, int T>
void tile(const WeightGradProblem& g, int64_t first_output, int64_t first_tap, bool clear) {
  const LaneTag d;
  using V = hn::Vec<LaneTag>;
  const auto places = static_cast<int64_t>(g.x_at.size()), all_taps = static_cast<int64_t>(g.taps.size());
  const int64_t d1 = g.dy_output, d3 = 3 * d1, d5 = 5 * d1;
  for (int64_t lane = 0; lane < kLanes; lane += static_cast<int64_t>(hn::Lanes(d))) {
    V sum[O][T];
    LOCKSTEP_UNROLL for (int o = 0; o < O; ++o) {
      LOCKSTEP_UNROLL for (int t = 0; t < T; ++t) sum[o][t] = hn::Zero(d);
    }
    for (int64_t block = 0; block < g.blocks; ++block) {
      const float* dy = g.dy + block * g.dy_block + first_output * d1 + g.first_place * kLanes + lane;
      const float* x[T];
      for (int t = 0; t < T; ++t)
        x[t] = g.x + block * g.x_block + g.taps[static_cast<size_t>(first_tap + t)] + lane;
      const int64_t* at = g.x_at.data();
      for (int64_t i = 0; i < places; ++i, dy += kLanes) {
        V e[O];
        LOCKSTEP_UNROLL for (int o = 0; o < O; ++o) {
          e[o] = hn::LoadU(d, o < 3 ? dy + o * d1 : o < 5 ? dy + d3 + (o - 3) * d1 : dy + d5);
        }
        LOCKSTEP_UNROLL for (int t = 0; t < T; ++t) {
          const V v = hn::LoadU(d, x[t] + at[i]);
          LOCKSTEP_UNROLL for (int o = 0; o < O; ++o) sum[o][t] = hn::MulAdd(e[o], v, sum[o][t]);
        }
      }
    }
    for (int o = 0; o < O; ++o)
      for (int t = 0; t < T; ++t) {
        float* to = g.sums + ((first_output + o) * all_taps + first_tap + t) * kLanes + lane;
        hn::StoreU(clear ? sum[o][t] : hn::Add(hn::LoadU(d, to), sum[o][t]), d, to);
      }
  }
}

using TileFunction = void (*)(const WeightGradProblem&, int64_t, int64_t, bool);

template <int I>
constexpr TileFunction tile_at() {
  constexpr int o = I / kMaxTile + 1, t = I % kMaxTile + 1;
  if constexpr (fits(o, t)) return tile<o, t>;
  return nullptr;
}

template <int... I>
constexpr std::array<TileFunction, sizeof...(I)> tile_table(std::integer_sequence<int, I...>) {
  return {tile_at<I>()...};
}

struct Range {
  int64_t o0, o1, t0, t1;
};

Range range_of(const WeightGradProblem& g, WeightGradTiles tiles, int64_t i) {
  const int64_t ot = i / tiles.taps, tt = i % tiles.taps, taps = static_cast<int64_t>(g.taps.size());
  return {g.outputs * ot / tiles.outputs, g.outputs * (ot + 1) / tiles.outputs, taps * tt / tiles.taps,
          taps * (tt + 1) / tiles.taps};
}

}  // namespace

WeightGradTiles weight_grad_cut(int64_t outputs, int64_t taps) {
  const auto [a, b] = best_tiles(outputs, taps, fits);
  return {a, b};
}

void weight_grad_compute(const WeightGradProblem& g, WeightGradTiles tiles, int64_t first, int64_t last,
                         bool clear) {
  static constexpr auto functions = tile_table(std::make_integer_sequence<int, kMaxTile * kMaxTile>());
  for (int64_t i = first; i < last; ++i) {
    const Range r = range_of(g, tiles, i);
    functions[static_cast<size_t>((r.o1 - r.o0 - 1) * kMaxTile + (r.t1 - r.t0 - 1))](g, r.o0, r.t0, clear);
  }
}

void weight_grad_reduce(const WeightGradProblem& g, WeightGradTiles tiles, int64_t first, int64_t last,
                        float* dw) {
  const LaneTag d;
  const auto taps = static_cast<int64_t>(g.taps.size());
  for (int64_t i = first; i < last; ++i) {
    const Range r = range_of(g, tiles, i);
    for (int64_t o = r.o0; o < r.o1; ++o)
      for (int64_t t = r.t0; t < r.t1; ++t) {
        const float* from = g.sums + (o * taps + t) * kLanes;
        auto sum = hn::LoadU(d, from);
        for (int64_t lane = static_cast<int64_t>(hn::Lanes(d)); lane < kLanes;
             lane += static_cast<int64_t>(hn::Lanes(d)))
          sum = hn::Add(sum, hn::LoadU(d, from + lane));
        dw[o * taps + t] = hn::GetLane(hn::SumOfLanes(d, sum));
      }
  }
}

float sum_places(const float* dy, int64_t blocks, int64_t dy_block, int64_t places) {
  const LaneTag d;
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  auto total = hn::Zero(d);
  for (int64_t block = 0; block < blocks; ++block) {
    const float* from = dy + block * dy_block;
    auto a = hn::Zero(d), b = a, c = a, e = a;
    int64_t i = 0;
    for (; i + 4 * step <= places * kLanes; i += 4 * step) {
      a = hn::Add(a, hn::LoadU(d, from + i));
      b = hn::Add(b, hn::LoadU(d, from + i + step));
      c = hn::Add(c, hn::LoadU(d, from + i + 2 * step));
      e = hn::Add(e, hn::LoadU(d, from + i + 3 * step));
    }
    for (; i < places * kLanes; i += step) a = hn::Add(a, hn::LoadU(d, from + i));
    total = hn::Add(total, hn::Add(hn::Add(a, b), hn::Add(c, e)));
  }
  return hn::GetLane(hn::SumOfLanes(d, total));
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {

HWY_EXPORT(weight_grad_cut);
HWY_EXPORT(weight_grad_compute);
HWY_EXPORT(weight_grad_reduce);
HWY_EXPORT(sum_places);

WeightGradTiles weight_grad_tiles(int64_t outputs, int64_t taps) {
  return HWY_DYNAMIC_DISPATCH(weight_grad_cut)(outputs, taps);
}

void weight_grad_accumulate(const WeightGradProblem& g, WeightGradTiles tiles, int64_t first, int64_t last,
                            bool clear) {
  HWY_DYNAMIC_DISPATCH(weight_grad_compute)(g, tiles, first, last, clear);
}

void weight_grad_finish(const WeightGradProblem& g, WeightGradTiles tiles, int64_t first, int64_t last,
                        float* dw) {
  HWY_DYNAMIC_DISPATCH(weight_grad_reduce)(g, tiles, first, last, dw);
}

float bias_grad(const float* dy, int64_t blocks, int64_t dy_block, int64_t places) {
  return HWY_DYNAMIC_DISPATCH(sum_places)(dy, blocks, dy_block, places);
}

}  // namespace lockstep
#endif
