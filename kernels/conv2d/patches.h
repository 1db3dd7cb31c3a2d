// SPDX-License-Identifier: Apache-2.0
// What turns a convolution of images in nhwc into a matrix product: patches of the input as rows, filters as
// panels of columns. Images and filters are f32 or bf16, matrices f32: bf16 is widened where it is read, and
// rounded once where it is written. All counts are of numbers.
#pragma once

#include "kernels/conv2d/conv2d.h"
#include "kernels/simd/panel_product.h"

namespace lockstep {

// x [N, H, W, C], outputs [N, P, Q, O], numbered through: rows.
struct Patches {
  Conv2dParams params;
  int64_t h = 1, w = 1, c = 1, p = 1, q = 1, kh = 1, kw = 1;
  int64_t taps() const { return kh * kw; }
  int64_t outputs() const { return p * q; }  // of a sample
};

// to[row][tap][channel] for these rows, taps and channels, tap = r * KW + s; zeros outside the image. Rows
// begin `to_row` apart.
void load_patches(const Patches&, const View& x, Range rows, Range taps, Range channels, float* to,
                  int64_t to_row);
// image[h][w][c] += from[row][kPanel], for the rows of one sample, where a tap takes them.
void add_patches(const Patches&, const float* from, Range rows, int64_t tap, Range channels, float* image);

// Filters w [O, C, KH, KW]: to[tap * C + c][kPanel] of a panel of outputs, zeros behind.
void pack_filters(const Patches&, const View& w, Range outputs, float* to);
// The other way round, for gradients of inputs: to[o][kPanel] of a tap and a panel of channels.
void pack_filters_back(const Patches&, const View& w, int64_t outputs, int64_t tap, Range channels,
                       float* to);

// y[row][columns] = act(from[panel of columns][row][kPanel] + bias), rounded to y's type; y's rows are `width` long. bias
// may be null, else begins at column 0 of y.
void store_rows(const float* from, Range rows, Range columns, const float* bias, Activation, const View& y,
                int64_t width);

}  // namespace lockstep
