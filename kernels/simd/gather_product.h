// SPDX-License-Identifier: Apache-2.0
// The one inner loop behind convolutions in the lanes layout (forward, input gradient) and behind all
// linear kernels: weights broadcast against 16-wide vectors gathered at fixed distances.
//
//   y[o*y_output + block*y_block + y_at[i]] = act(bias[o] + sum over c < channels, t in taps of
//       w[o*w_output + c*w_channel + t.w] * x[block*x_block + x_at[i] + c*x_channel + t.x])
// for every output o, block and position i, where x[...] and y[...] are 16 floats each and everything
// counts floats. The order of the sum is the same for every tile, thread count and instruction set, but with
// fused multiply-add only where the processor has it.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/core/activation.h"
#include "kernels/core/tensor.h"

namespace lockstep {

struct GatherTap {
  int64_t x = 0, w = 0;
};

struct GatherProblem {
  const float* x = nullptr;
  const float* w = nullptr;
  const float* bias = nullptr;  // may be null
  float* y = nullptr;
  int64_t blocks = 1, x_block = 0, y_block = 0;
  // Of the last block so many lanes are wanted; the others become zero where that saves work.
  int64_t last_lanes = kLanes;
  std::span<const int64_t> x_at, y_at;  // of equal length
  std::span<const GatherTap> taps;
  int64_t channels = 1, x_channel = 0, w_channel = 0;
  int64_t outputs = 1, w_output = 0, y_output = 0;
  bool add_to_y = false;  // start from y instead of the bias
  Activation activation = Activation::none;
};

// How a problem is cut into register tiles for the processor's registers.
struct GatherTiles {
  int64_t outputs = 0, positions = 0;  // tiles along each; positions of all blocks together
  int64_t count() const { return outputs * positions; }
};
GatherTiles gather_tiles(int64_t outputs, int64_t positions);
// Computes tiles [first, last) of all; those of one position tile are neighbours.
void gather_product(const GatherProblem& problem, GatherTiles tiles, int64_t first, int64_t last);
// All of it on up to `threads` threads, in chunks of channels that keep a tile's vectors in the cache.
void gather_product(const GatherProblem& problem, int threads);

}  // namespace lockstep
