// SPDX-License-Identifier: Apache-2.0
// Loops over a rank's threads. Work is cut into contiguous ranges of equal size; a result must not
// depend on where the cuts fall unless the kernel's BitExact says so.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/core/thread_team.h"

namespace lockstep {

// How many pieces of `b` hold `a`.
constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// f(begin, end) over [0, n), at most `threads` ranges, each at least `grain` long.
template <class F>
void parallel_ranges(int64_t n, int threads, int64_t grain, F&& f) {
  const int64_t most = std::max<int64_t>(1, n / std::max<int64_t>(grain, 1));
  const int t = static_cast<int>(std::min<int64_t>(threads, most));
  if (n <= 0) return;
  on_threads(t, [&](int64_t i, int64_t count) {
    const int64_t begin = n * i / count, end = n * (i + 1) / count;
    if (begin < end) f(begin, end);
  });
}

// f(i) for i in [0, n).
template <class F>
void parallel_for(int64_t n, int threads, F&& f) {
  parallel_ranges(n, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}

}  // namespace lockstep
