// SPDX-License-Identifier: Apache-2.0
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/gather_product.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <array>
#include <utility>

#include "kernels/core/parallel.h"
#include "kernels/core/tensor.h"
#include "kernels/simd/activate-inl.h"
#include "kernels/simd/gather_product.h"
#include "kernels/simd/register_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

namespace {

namespace hn = hwy::HWY_NAMESPACE;

// Held in registers beside the sums: P vectors of x and one weight.
constexpr bool fits(int o, int p) { return o * p + p + 1 <= kRegisters; }

// O outputs x P positions; xs, ys: the positions' places. wanted: lanes; vectors without any become zero.
template <int O, int P>
void tile(const GatherProblem& g, int64_t first_output, const int64_t* xs, const int64_t* ys,
          int64_t wanted) {
  const LaneTag d;
  using V = hn::Vec<LaneTag>;
  const float* first_w = g.w + first_output * g.w_output;
  const int64_t w1 = g.w_output, w3 = 3 * w1, w5 = 5 * w1;
  float* y[O];
  for (int o = 0; o < O; ++o) y[o] = g.y + (first_output + o) * g.y_output;
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  int64_t lane = 0;
  for (; lane < wanted; lane += step) {
    V sum[O][P];
    LOCKSTEP_UNROLL for (int o = 0; o < O; ++o) {
      LOCKSTEP_UNROLL for (int p = 0; p < P; ++p) {
        sum[o][p] = g.add_to_y ? hn::LoadU(d, y[o] + ys[p] + lane)
                               : hn::Set(d, g.bias != nullptr ? g.bias[first_output + o] : 0.0f);
      }
    }
    const float* x[P];
    for (int p = 0; p < P; ++p) x[p] = g.x + xs[p] + lane;
    const auto add = [&](int64_t x_tap, const float* w) HWY_ATTR {
      V v[P];
      LOCKSTEP_UNROLL for (int p = 0; p < P; ++p) v[p] = hn::LoadU(d, x[p] + x_tap);
      LOCKSTEP_UNROLL for (int o = 0; o < O; ++o) {
        const float* at = o < 3 ? w + o * w1 : o < 5 ? w + w3 + (o - 3) * w1 : w + w5;
        const V weight = hn::Set(d, *at);
        LOCKSTEP_UNROLL for (int p = 0; p < P; ++p) sum[o][p] = hn::MulAdd(weight, v[p], sum[o][p]);
      }
    };
    const float* w_channel = first_w;
    if (g.taps.size() == 1) {  // matrix products, whose inner loop is short
      const GatherTap tap = g.taps[0];
      for (int64_t c = 0; c < g.channels; ++c) {
        add(tap.x, w_channel + tap.w);
        LOCKSTEP_UNROLL for (int p = 0; p < P; ++p) x[p] += g.x_channel;
        w_channel += g.w_channel;
      }
    } else {
      for (int64_t c = 0; c < g.channels; ++c) {
        for (const GatherTap& t : g.taps) add(t.x, w_channel + t.w);
        for (int p = 0; p < P; ++p) x[p] += g.x_channel;
        w_channel += g.w_channel;
      }
    }
    for (int o = 0; o < O; ++o)
      for (int p = 0; p < P; ++p) hn::StoreU(sum[o][p], d, y[o] + ys[p] + lane);
    // In a pass of its own: between sums and stores it would cost the sums their registers.
    if (g.activation == Activation::none) continue;
    for (int o = 0; o < O; ++o)
      for (int p = 0; p < P; ++p) {
        float* const at = y[o] + ys[p] + lane;
        hn::StoreU(activate(d, g.activation, hn::LoadU(d, at)), d, at);
      }
  }
  for (; lane < kLanes; lane += step)
    for (int o = 0; o < O; ++o)
      for (int p = 0; p < P; ++p) hn::StoreU(hn::Zero(d), d, y[o] + ys[p] + lane);
}

using TileFunction = void (*)(const GatherProblem&, int64_t, const int64_t*, const int64_t*, int64_t);

template <int I>
constexpr TileFunction tile_at() {
  constexpr int o = I / kMaxTile + 1, p = I % kMaxTile + 1;
  if constexpr (fits(o, p)) return tile<o, p>;
  return nullptr;
}

template <int... I>
constexpr std::array<TileFunction, sizeof...(I)> tile_table(std::integer_sequence<int, I...>) {
  return {tile_at<I>()...};
}

}  // namespace

GatherTiles gather_cut(int64_t outputs, int64_t positions) {
  const auto [a, b] = best_tiles(outputs, positions, fits);
  return {a, b};
}

void gather_compute(const GatherProblem& g, GatherTiles tiles, int64_t first, int64_t last) {
  static constexpr auto functions = tile_table(std::make_integer_sequence<int, kMaxTile * kMaxTile>());
  const int64_t per_block = static_cast<int64_t>(g.x_at.size()), positions = g.blocks * per_block;
  for (int64_t i = first; i < last; ++i) {
    const int64_t pt = i / tiles.outputs, ot = i % tiles.outputs;
    const int64_t p0 = positions * pt / tiles.positions, p1 = positions * (pt + 1) / tiles.positions;
    const int64_t o0 = g.outputs * ot / tiles.outputs, o1 = g.outputs * (ot + 1) / tiles.outputs;
    int64_t xs[kMaxTile], ys[kMaxTile];
    int64_t block = p0 / per_block, at = p0 % per_block;
    const int64_t wanted = block == g.blocks - 1 ? g.last_lanes : kLanes;
    for (int64_t p = p0; p < p1; ++p) {
      xs[p - p0] = block * g.x_block + g.x_at[static_cast<size_t>(at)];
      ys[p - p0] = block * g.y_block + g.y_at[static_cast<size_t>(at)];
      if (++at == per_block) at = 0, ++block;
    }
    functions[static_cast<size_t>((o1 - o0 - 1) * kMaxTile + (p1 - p0 - 1))](g, o0, xs, ys, wanted);
  }
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {

HWY_EXPORT(gather_cut);
HWY_EXPORT(gather_compute);

GatherTiles gather_tiles(int64_t outputs, int64_t positions) {
  return HWY_DYNAMIC_DISPATCH(gather_cut)(outputs, positions);
}

void gather_product(const GatherProblem& problem, GatherTiles tiles, int64_t first, int64_t last) {
  HWY_DYNAMIC_DISPATCH(gather_compute)(problem, tiles, first, last);
}

void gather_product(const GatherProblem& problem, int threads) {
  constexpr int64_t kChunk = 256;         // channels: 64 KiB of vectors for four positions
  constexpr int64_t kGrainWork = 40'000;  // vector multiply-adds below which a thread isn't worth waking
  const int64_t positions = problem.blocks * static_cast<int64_t>(problem.x_at.size());
  if (positions == 0 || problem.outputs == 0) return;
  const GatherTiles tiles = gather_tiles(problem.outputs, positions);
  const int64_t sums = problem.channels * static_cast<int64_t>(problem.taps.size());
  const int64_t work_per_tile = positions * problem.outputs / tiles.count() * sums;
  parallel_ranges(tiles.count(), threads, kGrainWork / (work_per_tile + 1) + 1,
                  [&](int64_t first, int64_t last) {
                    GatherProblem part = problem;
                    int64_t done = 0;
                    do {  // once at least: a sum of nothing is the bias
                      part.channels = std::min(kChunk, problem.channels - done);
                      part.add_to_y = problem.add_to_y || done > 0;
                      part.x = problem.x + done * problem.x_channel;
                      part.w = problem.w + done * problem.w_channel;
                      done += part.channels;
                      part.activation = done < problem.channels ? Activation::none : problem.activation;
                      gather_product(part, tiles, first, last);
                    } while (done < problem.channels);
                  });
}

}  // namespace lockstep
#endif
