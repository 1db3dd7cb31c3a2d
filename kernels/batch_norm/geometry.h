// SPDX-License-Identifier: Apache-2.0
// How a batch norm sees its tensor: channels as runs (lanes, plain) or as columns (channels last, [N, C]).
#pragma once

#include "kernels/core/tensor.h"
#include "kernels/simd/tile.h"

namespace lockstep {

// Of z = (x - mean) * scale + beta: the same bits wherever z is made, or relu's gradient would not fit.
inline float batch_norm_scale(float gamma, float invstd) {
  return static_cast<float>(double{gamma} * double{invstd});
}

struct BatchNormGeometry {
  int64_t n, c, hw;
  bool lanes, columns;

  explicit BatchNormGeometry(const TensorSpec& x)
      : n(x.shape[0]),
        c(x.shape[1]),
        hw(x.shape.elements_from(2)),
        lanes(x.layout == Layout::lanes),
        columns(x.layout == Layout::nhwc || (x.layout == Layout::plain && hw == 1)) {}

  int64_t run_length() const { return lanes ? hw * kLanes : hw; }
  int64_t runs() const { return c * (lanes ? (n + kLanes - 1) / kLanes : n); }  // channel of run r: r % c
  // Samples in the block of run r, lanes layout.
  int64_t lanes_used(int64_t r) const { return std::min<int64_t>(kLanes, n - r / c * kLanes); }

  // What is summed, cut into pieces. A piece is done for every channel (or tile of channels) before the
  // next one, so that memory is read in order.
  Cut whole() const { return lanes ? Cut(n / kLanes, hw) : columns ? Cut(1, n * hw) : Cut(n, hw / kLanes); }
  Cut last_block() const { return Cut(n % kLanes == 0 ? 0 : 1, hw); }  // lanes: the block with padding
  int64_t pieces() const {
    if (n * hw == 0) return 0;
    return whole().pieces() + (lanes ? last_block().pieces() : 0);
  }
  int64_t tiles_across() const { return columns ? (c + kTileWidth - 1) / kTileWidth : c; }
  int64_t tasks() const { return pieces() * tiles_across(); }
  int64_t elements_a_task() const { return tasks() == 0 ? 1 : std::max<int64_t>(1, n * c * hw / tasks()); }

  // Columns: a piece of up to 32 channels, which begin at first_channel.
  Tile columns_tile(int64_t task, int64_t& first_channel) const {
    const Cut::Piece p = whole().piece(task / tiles_across());
    first_channel = task % tiles_across() * kTileWidth;
    const int width = static_cast<int>(std::min<int64_t>(kTileWidth, c - first_channel));
    return {p.row * c + first_channel, 1, 0, p.rows, c, width};
  }

  // Runs: a channel's piece as one or two tiles. `counted`: the columns of a tile that hold samples.
  struct RunTiles {
    Tile tile[2];
    int counted[2] = {kLanes, 0};
    int count = 1;
  };
  RunTiles run_tiles(int64_t task) const {
    const int64_t index = task / c, channel = task % c, run_length_ = run_length();
    const int64_t first_of_channel = channel * run_length_, run_stride = c * run_length_;
    const Cut cut = whole();
    RunTiles t;
    if (lanes && index >= cut.pieces()) {
      const Cut::Piece p = last_block().piece(index - cut.pieces());
      t.tile[0] = {n / kLanes * run_stride + first_of_channel + p.row * kLanes, 1, 0, p.rows, kLanes, kLanes};
      t.counted[0] = static_cast<int>(n % kLanes);
      return t;
    }
    const Cut::Piece p = cut.piece(index);
    const int64_t offset = p.run * run_stride + first_of_channel;
    t.tile[0] = {offset + p.row * kLanes, p.runs, run_stride, p.rows, kLanes, kLanes};
    const int rest = lanes ? 0 : static_cast<int>(hw % kLanes);
    if (rest != 0 && p.row + p.rows == cut.rows) {  // what is left of a plain run
      Tile& last = t.tile[p.rows == 0 ? 0 : 1];
      t.count = p.rows == 0 ? 1 : 2;
      t.counted[t.count - 1] = rest;
      last = {offset + cut.rows * kLanes, p.runs, run_stride, 1, 0, rest};
    }
    return t;
  }
};

}  // namespace lockstep
