// SPDX-License-Identifier: Apache-2.0
// The inner loops of Winograd's convolutions of lanes. All counts are of floats; what is called a place is 16 of them, a sample
// each.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/core/activation.h"
#include "kernels/core/tensor.h"

namespace lockstep::lanes_winograd {

inline constexpr int64_t kTaps = 5, kStep = 4;       // sides of a filter, of what a tile has of y
inline constexpr int64_t kSide = kTaps + kStep - 1;  // of what it has of x
inline constexpr int64_t kPoints = kSide * kSide;
inline constexpr int64_t kLine =
    16;  // of the cache. Distances of a power of two would meet in few of its sets

// [blocks][c][h][w] places.
struct Images {
  int64_t c = 0, h = 0, w = 0;
  int64_t plane() const { return h * w * kLanes; }
  int64_t block() const { return c * plane(); }
};

// Tiles are numbered through: blocks, rows, columns. They may reach beyond both images, where all is zero.
struct Tiling {
  Images x, y;
  int64_t pad_top = 0, pad_left = 0;
  int64_t rows = 0, columns = 0;
  int64_t tiles() const { return rows * columns; }  // of a block
};

// A side that is the result of a product is taken in groups of up to so many channels, as even as possible.
inline constexpr int64_t kGroup = 6;
constexpr int64_t groups_of(int64_t channels) { return (channels + kGroup - 1) / kGroup; }
constexpr int64_t group_begin(int64_t channels, int64_t group) {
  return channels * group / groups_of(channels);
}

// Filters at the points: u[point * row + i], i the number of the filter that begins at w[from[i]]; `row` is more than a
// line's multiple that holds all. For a product they stand [group][channel of the other side][channel of the group].
void transform_filters(std::span<const int64_t> from, const float* w, float* u, int64_t row);

// dx of a block, of groups [first, last) of its channels.
int64_t input_grad_floats(const Tiling&);
void input_grad(const Tiling&, const float* dy, const float* u, int64_t u_row, float* dx, int64_t block,
                int64_t first, int64_t last, float* scratch);

// For weight gradients so many tiles at once: transformed[point][channel][tile], a point's matrix `matrix` floats behind the
// last one's.
inline constexpr int64_t kTiles = 8;
struct TileRange {
  int64_t first = 0, count = 0;
};
void transform_data(const Tiling&, const float* x, TileRange, int64_t channel, float* to, int64_t matrix);
void transform_gradient(const Tiling&, const float* dy, TileRange, int64_t channel, float* to,
                        int64_t matrix);
// sums[o * C + c] (+)= the products of a point's matrices, over tiles and lanes.
void multiply_tiles(int64_t outputs, int64_t inputs, int64_t tiles, const float* dy, const float* x,
                    double* sums, bool add);
// The sum of an output's matrix at the point (1, 1), which is that of dy.
float sum_of_tiles(const float* matrix, int64_t tiles);
// dw[f][5][5] from sums[point * row + f], f < filters. Whole vectors are read.
void transform_back(const double* sums, int64_t row, int64_t filters, float* dw);

// F(4, 5) along rows, with sums over the 5 rows of the filters. A strip is some rows of y, one vector of lanes wide; strips are
// numbered through: blocks, vectors, rows.
int64_t strips(const Tiling&);  // of a block
// A thread's scratch.
int64_t forward_strip_floats(const Tiling&);
int64_t weight_grad_strip_floats(const Tiling&);  // of finish_strips() too, which wants it aligned for double
// Rows of filters at the points, as transform_filters(), u[point * row + i]. They stand [group][channel of x][row of a
// filter][channel of the group].
void transform_filter_rows(std::span<const int64_t> from, const float* w, float* u, int64_t row);
void forward_strip(const Tiling&, const float* x, const float* u, int64_t u_row, const float* bias,
                   Activation, float* y, int64_t strip, float* scratch);
// Weight gradients of some strips: sums[point][output][channel of x][row of a filter], then db[output], a vector each.
int64_t strip_sums(const Tiling&);  // how many; there is room for 16 floats of each
void weight_grad_strips(const Tiling&, const float* x, const float* dy, int64_t first, int64_t last,
                        float* sums, float* scratch);
// dw and db, which may be null, from so many such sums behind each other.
void finish_strips(const Tiling&, const float* sums, int64_t parts, float* dw, float* db, float* scratch);

}  // namespace lockstep::lanes_winograd
