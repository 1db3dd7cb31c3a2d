// SPDX-License-Identifier: Apache-2.0
// The inner loops of the lanes weight gradient.
#pragma once

#include <cstdint>
#include <span>

namespace lockstep {

// Everything counts floats; x[...], dy[...] and sums[...] are 16 of them each.
struct WeightGradProblem {
  const float* x = nullptr;   // one group's first channel, padded where the taps leave the image
  const float* dy = nullptr;  // one group's first channel
  float* sums = nullptr;      // [outputs][taps][16]
  int64_t blocks = 1, x_block = 0, dy_block = 0;
  std::span<const int64_t>
      x_at;  // where each place's window begins; place i of dy lies at (first_place + i)*16
  int64_t first_place = 0;
  std::span<const int64_t> taps;  // distances from there
  int64_t outputs = 1, dy_output = 0;
};

struct WeightGradTiles {
  int64_t outputs = 0, taps = 0;
  int64_t count() const { return outputs * taps; }
};
WeightGradTiles weight_grad_tiles(int64_t outputs, int64_t taps);
// sums[o][t] += sum over blocks, places of dy * x, lane by lane, for tiles [first, last); where `clear`, =
// instead.
void weight_grad_accumulate(const WeightGradProblem&, WeightGradTiles, int64_t first, int64_t last,
                            bool clear);
// dw[o][t] = the sum of the lanes of sums[o][t] over those tiles.
void weight_grad_finish(const WeightGradProblem&, WeightGradTiles, int64_t first, int64_t last, float* dw);
// The sum of dy over blocks, `places` and lanes: one output's bias gradient.
float bias_grad(const float* dy, int64_t blocks, int64_t dy_block, int64_t places);

}  // namespace lockstep
