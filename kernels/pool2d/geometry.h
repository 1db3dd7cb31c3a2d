// SPDX-License-Identifier: Apache-2.0
// What the windowed kernels (windowed.cpp) know before they run.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "kernels/pool2d/window.h"

namespace lockstep::pool2d {

// Everything about a pooling but its batch size.
struct Geometry {
  Pool2dParams p;
  int64_t h = 0, w = 0;
  int64_t v = 1;                      // numbers side by side that share a window
  std::vector<Window> rows, columns;  // one per output row, column
  bool pairs = false;                 // 2x2 windows, stride 2, none cut off
  bool tiles = false;                 // windows lie edge to edge from 0 on: each pixel is in one at most
  int64_t covered_h = 0, covered_w = 0;
  // Plain layout, stride 1 or 2: these columns' windows, and the number after each, lie inside a row.
  int64_t inner_first = 0, inner_last = 0;
  std::array<int64_t, 256> taps{};  // plain layout: where each position of a window lies, from its start
};

// Nothing where a window is empty: its maximum is -inf, which padding lanes must not hold.
std::optional<Geometry> make_geometry(const Pool2dParams&, const TensorSpec& image);

// The tensors of one run, of f32 or bf16.
struct Images {
  bool bf16 = false;
  const void* x = nullptr;  // or dy
  const uint8_t* index_in = nullptr;
  void* y = nullptr;  // or dx
  uint8_t* index = nullptr;
  int64_t planes = 0;
  int threads = 1;
};

}  // namespace lockstep::pool2d
