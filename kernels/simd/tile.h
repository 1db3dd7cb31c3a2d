// SPDX-License-Identifier: Apache-2.0
// Numbers to be reduced column by column: what normalisations sum over, in every layout.
//
// A tile is `runs` x `rows` rows of `width` columns. A run of channel c in the lanes layout is H*W rows of
// 16 samples; in the plain layout H*W elements, read as rows of 16 and a part of one; with channels last
// each column is a channel of its own.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lockstep {

inline constexpr int kTileWidth = 32;  // columns at most
// Rows that one f32 accumulator sums before it is carried over to double; 16 KB at 16 columns, so that the
// second pass of a variance finds them in the L1 cache.
inline constexpr int64_t kTileRows = 256;

struct Tile {
  int64_t offset = 0;  // of its first element in the tensor
  int64_t runs = 1, run_stride = 0, rows = 0, row_stride = 0;
  int width = 0;
  int64_t count() const { return runs * rows; }  // numbers in a column
};

// y = (x - mean) * scale + shift
struct Normalize {
  const float *mean, *scale, *shift;  // one a column
};
// dx = (dy * scale - shift) - (x - mean) * slope
struct NormalizeGrad {
  const float *mean, *scale, *shift, *slope;
};

// Cuts runs x rows into pieces of about kTileRows rows: several short runs, or part of a long one. The cut
// depends on nothing else, so neither do the bits of what is summed by pieces.
struct Cut {
  int64_t runs, rows, runs_per, rows_per;
  Cut(int64_t runs_, int64_t rows_)
      : runs(runs_),
        rows(rows_),
        runs_per(std::clamp<int64_t>(kTileRows / std::max<int64_t>(rows, 1), 1, std::max<int64_t>(runs, 1))),
        rows_per(std::min(rows, kTileRows)) {}
  int64_t per_run() const { return rows == 0 ? 1 : (rows + rows_per - 1) / rows_per; }
  int64_t pieces() const { return (runs + runs_per - 1) / runs_per * per_run(); }

  struct Piece {
    int64_t run, runs, row, rows;
  };
  Piece piece(int64_t i) const {
    const int64_t run = i / per_run() * runs_per, row = i % per_run() * rows_per;
    return {run, std::min(runs_per, runs - run), row, std::min(rows_per, rows - row)};
  }
};

}  // namespace lockstep
