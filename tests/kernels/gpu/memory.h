// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/gpu/watch/watch.h"
#include "tests/kernels/gpu/kernels.h"

namespace lockstep {

// The kernels' memory, as the watch is told of it.
class WatchedMemory {
 public:
  WatchedMemory() : floats_(2 * kFloats + 3 * kGuard), integers_(64 + 3 * kGuard) {
    memory.x = aligned(floats_.data() + kGuard);
    memory.y = memory.x + kFloats + kGuard / 2;
    memory.i = aligned(integers_.data() + kGuard);
    x_.emplace(memory.x, kFloats * 4, "x");
    y_.emplace(memory.y, kFloats * 4, "y");
    i_.emplace(memory.i, 64 * 4, "i");
    for (int k = 0; k < kFloats; ++k) memory.x[k] = static_cast<float>(k);
  }
  TestMemory memory;

 private:
  static constexpr int kFloats = 256, kGuard = 1024;
  template <class T>
  static T* aligned(T* p) {
    return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(p) + 63) / 64 * 64);
  }
  std::vector<float> floats_;
  std::vector<int> integers_;
  std::optional<gpu_watch::Allocation> x_, y_, i_;
};

}  // namespace lockstep
