// SPDX-License-Identifier: Apache-2.0
// The inner loop of matrix products whose right-hand sides come in panels of 32 columns. All counts are of
// floats.
#pragma once

#include <cstdint>
#include <functional>

namespace lockstep {

inline constexpr int64_t kPanel = 32;

// [first, last)
struct Range {
  int64_t first = 0, last = 0;
  int64_t size() const { return last - first; }
};

// Several matrices of a size; where there is one, slice is not read.
struct ConstMatrices {
  const float* data = nullptr;
  int64_t slice = 0, row = 0;  // distances
  const float* at(int64_t r, int64_t column = 0) const { return data + r * row + column; }
};
struct Matrices {
  float* data = nullptr;
  int64_t slice = 0, row = 0;
  float* at(int64_t r, int64_t column = 0) const { return data + r * row + column; }
  operator ConstMatrices() const { return {data, slice, row}; }
};

// c = a b (or c += a b) for each slice, b and c one panel wide, c's rows lying close (row: kPanel). a's
// element (r, k) at r * row + k * step. The order of the sums is the same on every instruction set, but with
// fused multiply-add only where the processor has it.
struct PanelProduct {
  ConstMatrices a;
  int64_t a_step = 1;
  ConstMatrices b;
  Matrices c;
  int64_t rows = 0, depth = 0;
  bool add = false;
  int64_t slices = 1;
  // What is read next, by whoever: fetched into the second cache meanwhile.
  const float* next = nullptr;
  int64_t next_floats = 0;
};
void multiply(const PanelProduct&);

// c[panel][rows][kPanel] = a[rows][depth] b[panel][depth][kPanel] for so many panels; a's rows `a_row` apart. Sums of a hundred
// rows and of a dozen panels stay in the second cache. finished(panel): its sums are, and lie in the first.
void multiply_panels(const float* a, int64_t a_row, int64_t rows, int64_t depth, const float* b, float* c,
                     int64_t panels, const std::function<void(int64_t panel)>& finished = {});

}  // namespace lockstep
