// SPDX-License-Identifier: Apache-2.0
// The inner loops of Winograd's convolutions: transforms between images in nhwc and 36 matrices, and the
// products of these. Images and filters are f32 or bf16, matrices and all arithmetic f32: bf16 is widened
// where it is read, and rounded once where it is written. All counts are of numbers.
#pragma once

#include <cstdint>

#include "kernels/core/activation.h"
#include "kernels/core/tensor.h"
#include "kernels/simd/panel_product.h"

namespace lockstep::winograd {

inline constexpr int64_t kStep = 4;     // from one tile to the next
inline constexpr int64_t kTile = 6;     // side of a transformed tile
inline constexpr int64_t kSlices = 36;  // its elements, a matrix each: whole panels of columns, zeros behind

// Images [N, H, W, C] cut into tiles: rows x columns a sample, the first at (first_y, first_x), the others
// kStep further each. A tile may reach beyond the image, where all is zero.
struct Tiling {
  int64_t h = 0, w = 0, c = 0;
  int64_t rows = 0, columns = 0;
  int64_t first_y = 0, first_x = 0;
};

// Rows: tiles; columns: channels, zeros up to a whole panel. 6 x 6 pixels of each tile.
void transform_data(const Tiling&, const View& x, Range tiles, Range channels, Matrices to);
// The same of 4 x 4 pixels, the filter of a weight gradient.
void transform_output_grad(const Tiling&, const View& dy, Range tiles, Range channels, Matrices to);
// y = act(output + bias) for 4 x 4 pixels of each tile; bias [C] or null.
void transform_output(const Tiling&, Matrices from, Range tiles, Range channels, const float* bias,
                      Activation, const View& y);

// 3 x 3 filters w[i * input_stride + o * output_stride + tap], as a forward convolution (rotated by 180
// degrees: an input gradient) reads them. Rows: i; columns: o, up to a panel, zeros behind.
struct Filters {
  View w;
  int64_t input_stride = 0, output_stride = 0;
  bool rotated = false;
};
void transform_filters(const Filters&, Range inputs, Range outputs, Matrices to);
// dw[o, c, 3, 3] from sums whose rows are input and columns output channels, the first ones at 0.
void transform_weight_grad(Matrices from, Range inputs, Range outputs, int64_t all_inputs, float* dw);

}  // namespace lockstep::winograd
