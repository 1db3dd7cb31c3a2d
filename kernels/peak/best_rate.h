// SPDX-License-Identifier: Apache-2.0
// How fast all threads together do something, for the measured peaks.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>

#include "kernels/core/parallel.h"

namespace lockstep {

// Of a few tries the best, in operations per nanosecond (G/s). `work`, called on each of the threads with
// `rounds`, returns its operations and leaves what it computed in *result.
template <class Work>
double best_rate(int threads, long rounds, Work&& work) {
  constexpr int kTries = 5;
  double best = 0;
  for (int i = 0; i < kTries; ++i) {
    std::atomic<double> operations = 0;
    [[maybe_unused]] volatile float kept = 0;  // so that the work is not optimised away
    const auto start = std::chrono::steady_clock::now();
    parallel_for(threads, threads, [&](int64_t) {
      float result = 0;
      operations += work(rounds, &result);
      if (result < 0) kept = result;
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, operations / seconds * 1e-9);
  }
  return best;
}

}  // namespace lockstep
