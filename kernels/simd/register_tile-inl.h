// SPDX-License-Identifier: Apache-2.0
// What register-blocked kernels share: the registers there are, and how to cut a problem for them.
// Included once per Highway target, hence no #pragma once.
#if defined(LOCKSTEP_CORE_REGISTER_TILE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_CORE_REGISTER_TILE_INL
#undef LOCKSTEP_CORE_REGISTER_TILE_INL
#else
#define LOCKSTEP_CORE_REGISTER_TILE_INL
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#ifndef LOCKSTEP_UNROLL
#define LOCKSTEP_UNROLL _Pragma("GCC unroll 8")
#endif

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

// A vector of up to 16 floats; a block of 16 lanes is one, two or more of them.
using LaneTag = hwy::HWY_NAMESPACE::CappedTag<float, 16>;

#if HWY_TARGET <= HWY_AVX3
inline constexpr int kRegisters = 32;
#else
inline constexpr int kRegisters = 16;
#endif
inline constexpr int kMaxTile = 6;  // along each side

// Into how many tiles to cut rows and columns, evenly, so that a tile of a x b sums fits the registers:
// the cheapest by multiply-adds, loads and loop overhead.
template <class Fits>
std::pair<int64_t, int64_t> best_tiles(int64_t rows, int64_t columns, Fits fits) {
  std::pair<int64_t, int64_t> best{rows, columns};
  double best_cost = 0;
  for (int a = 1; a <= kMaxTile; ++a)
    for (int b = 1; b <= kMaxTile; ++b) {
      if (!fits(a, b)) continue;
      const int64_t m = (rows + a - 1) / a, n = (columns + b - 1) / b;
      const double work = static_cast<double>(m * n) * (a * b + 0.5 * (a + b) + 2);
      if (best_cost == 0 || work < best_cost) best = {m, n}, best_cost = work;
    }
  return best;
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
