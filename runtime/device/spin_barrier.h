// SPDX-License-Identifier: Apache-2.0
// Where threads that each have a core meet, without the time it takes to sleep and wake up.
#pragma once

#include <atomic>
#include <thread>

namespace lockstep {

class SpinBarrier {
 public:
  explicit SpinBarrier(int threads) : threads_(threads) {}
  // Returns when all have called it as often as this one.
  void meet() {
    const int generation = generation_.load();
    if (came_.fetch_add(1) + 1 == threads_) {
      came_ = 0;
      ++generation_;
      return;
    }
    constexpr int kSpins = 100'000;  // then somebody lacks a core
    for (int i = 0; generation_.load(std::memory_order_acquire) == generation; ++i)
      if (i > kSpins) std::this_thread::yield();
  }

 private:
  const int threads_;
  std::atomic<int> came_ = 0, generation_ = 0;
};

}  // namespace lockstep
