// SPDX-License-Identifier: Apache-2.0
// How the fast kernels see a tensor [N, ..., C]: rows of C numbers.
#pragma once

#include <algorithm>

#include "kernels/core/tensor.h"

namespace lockstep::layer_norm {

struct Geometry {
  int64_t samples, rows, c;  // rows: of a sample

  explicit Geometry(const TensorSpec& x) : samples(x.shape[0]), rows(1), c(x.shape[x.shape.rank() - 1]) {
    for (int i = 1; i + 1 < x.shape.rank(); ++i) rows *= x.shape[i];
  }
  int64_t all_rows() const { return samples * rows; }

  // Sums over rows are cut into pieces of up to kPieceRows rows of one sample, so that they depend neither on
  // the threads nor on the samples beside it.
  static constexpr int64_t kPieceRows = 64;
  int64_t pieces_of_sample() const { return (rows + kPieceRows - 1) / kPieceRows; }
  int64_t pieces() const { return samples * pieces_of_sample(); }
  int64_t first_row(int64_t piece) const {
    return piece / pieces_of_sample() * rows + piece % pieces_of_sample() * kPieceRows;
  }
  int64_t end_row(int64_t piece) const {
    return std::min(first_row(piece) + kPieceRows, (piece / pieces_of_sample() + 1) * rows);
  }
};

}  // namespace lockstep::layer_norm
