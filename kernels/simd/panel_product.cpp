// SPDX-License-Identifier: Apache-2.0
#include "kernels/simd/panel_product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/panel_product.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h
#include <algorithm>
#include <array>
#include <utility>

#include "kernels/core/parallel.h"
#include "kernels/simd/register_tile-inl.h"
#include "kernels/simd/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {
namespace {

// A strip of sums in registers, beside two vectors of b and one of a.
constexpr int kStripRows = kRegisters == 32 ? 8 : 6;
constexpr int kStripVecs = 2;
constexpr int64_t kLine = 16;  // floats of a line of the cache

// What the product after this one reads of b. A strip fetches its share, some lines for each kLine of its own depth: the
// processor's own prefetcher sees too late where a new matrix begins.
struct Ahead {
  const float* at = nullptr;
  int64_t lines = 0;
};

template <int R>
void strip(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_row, float* c,
           int64_t depth, bool add, Ahead ahead) {
  Vec sum[R][kStripVecs];
  LOCKSTEP_UNROLL for (int r = 0; r < R; ++r) {
    LOCKSTEP_UNROLL for (int v = 0; v < kStripVecs; ++v) {
      sum[r][v] = add ? load(c + r * kPanel + v * kVec) : hn::Zero(Floats());
    }
  }
  // The rows of a are too short for the processor's own prefetcher: a line of each of the next strip's at a time.
  const bool along_rows = a_step == 1;
  for (int64_t k = 0; k < depth;) {
    if (along_rows) LOCKSTEP_UNROLL for (int r = 0; r < R; ++r) __builtin_prefetch(a + (R + r) * a_row);
    for (int64_t i = 0; i < ahead.lines; ++i, ahead.at += kLine) __builtin_prefetch(ahead.at, 0, 2);
    for (const int64_t end = std::min(k + kLine, depth); k < end; ++k, a += a_step, b += b_row) {
      const Vec b0 = load(b), b1 = load(b + kVec);
      LOCKSTEP_UNROLL for (int r = 0; r < R; ++r) {
        const Vec v = hn::Set(Floats(), a[r * a_row]);
        sum[r][0] = hn::MulAdd(v, b0, sum[r][0]);
        sum[r][1] = hn::MulAdd(v, b1, sum[r][1]);
      }
    }
  }
  LOCKSTEP_UNROLL for (int r = 0; r < R; ++r) {
    LOCKSTEP_UNROLL for (int v = 0; v < kStripVecs; ++v) store(sum[r][v], c + r * kPanel + v * kVec);
  }
}

using Strip = decltype(&strip<1>);
template <int... I>
constexpr std::array<Strip, sizeof...(I)> strips(std::integer_sequence<int, I...>) {
  return {strip<I + 1>...};
}

}  // namespace

void products(const PanelProduct& p) {
  static constexpr auto of_rows = strips(std::make_integer_sequence<int, kStripRows>());
  static_assert(kPanel % (kStripVecs * kVec) == 0);
  constexpr int64_t kColumns = kStripVecs * kVec;
  if (p.rows == 0) return;
  const int64_t strips_of_slice = divide_up(p.rows, kStripRows) * (kPanel / kColumns),
                groups = std::max<int64_t>(1, divide_up(p.depth, kLine));  // of a strip's depth
  for (int64_t s = 0; s < p.slices; ++s) {
    const bool last = s + 1 == p.slices, close = p.b.row == kPanel;
    Ahead ahead{last ? p.next : p.b.data + (s + 1) * p.b.slice};
    const int64_t floats = last ? p.next_floats : close ? p.depth * kPanel : 0;
    ahead.lines = divide_up(divide_up(floats, kLine), strips_of_slice * groups);
    for (int64_t r = 0; r < p.rows; r += kStripRows) {
      const int64_t rows = std::min<int64_t>(kStripRows, p.rows - r);
      for (int64_t column = 0; column < kPanel; column += kColumns) {
        of_rows[static_cast<size_t>(rows - 1)](p.a.at(r) + s * p.a.slice, p.a.row, p.a_step,
                                               p.b.at(0, column) + s * p.b.slice, p.b.row,
                                               p.c.at(r, column) + s * p.c.slice, p.depth, p.add, ahead);
        ahead.at += groups * ahead.lines * kLine;
      }
    }
  }
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {

HWY_EXPORT(products);

void multiply(const PanelProduct& p) { HWY_DYNAMIC_DISPATCH(products)(p); }

void multiply_panels(const float* a, int64_t a_row, int64_t rows, int64_t depth, const float* b, float* c,
                     int64_t panels, const std::function<void(int64_t panel)>& finished) {
  constexpr int64_t kDepth = 128;  // of a panel at once: 16 KB, which stay in the first cache
  for (int64_t k = 0; k < depth; k += kDepth) {
    const int64_t deep = std::min(kDepth, depth - k);
    const bool last = k + deep == depth;
    for (int64_t i = 0; i < panels; ++i) {
      int64_t next = (i + 1) * depth + k;  // row of b
      if (i + 1 == panels) next = last ? panels * depth : k + deep;
      multiply({.a = {a + k, 0, a_row},
                .b = {b + (i * depth + k) * kPanel, 0, kPanel},
                .c = {c + i * rows * kPanel, 0, kPanel},
                .rows = rows,
                .depth = deep,
                .add = k > 0,
                .next = b + next * kPanel,
                .next_floats = deep * kPanel});
      if (last && finished) finished(i);
    }
  }
}

}  // namespace lockstep
#endif
