// SPDX-License-Identifier: Apache-2.0
// Channels put side by side, and taken apart again.
//
// Op                       inputs           outputs
//   concat                 x_0, x_1, ...    y          the channels of x_0, then x_1, ...; inputs >= 2
//   slice_channels         x                y          channels [begin, begin + count) of x
//   slice_channels_grad    dy               dx         dy in those channels, zeros beside them
// x_i [N, C_i, ...], equal but for C_i; y of concat [N, sum of C_i, ...]; x, dx of the slices [N, C, ...], y,
// dy [N, count, ...]; begin + count <= C. All in one layout and of one dtype.
// The gradient of concat is a slice_channels for each input.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>

namespace lockstep {

// concat has NoParams.
struct SliceChannelsParams {
  int64_t begin = 0, count = 0;
  std::string text() const { return fmt::format("begin={} count={}", begin, count); }
};

}  // namespace lockstep
