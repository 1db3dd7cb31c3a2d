// SPDX-License-Identifier: Apache-2.0
// How fast this machine reads and copies, measured.
#pragma once

#include <cstdint>

namespace lockstep {

struct Bandwidth {
  double read_gb_s = 0;  // summing floats
  double copy_gb_s = 0;  // memcpy: bytes read and bytes written, as STREAM counts them
};

// Of so many threads together, each on its own part of `bytes` in all: the best of a few tries of some
// milliseconds each.
Bandwidth measure_bandwidth(int threads, int64_t bytes);

}  // namespace lockstep
