// SPDX-License-Identifier: Apache-2.0
// Whether others want the cores that some of this process's threads compute on. Linux counts how long each thread could have run
// and waited for a core: the second number of /proc/self/task/TID/schedstat, in nanoseconds (its documentation, sched-stats.rst).
// On cores of their own threads wait 1 to 5 % of the time, mostly for the loader's; where as many others compute as there are
// cores, half of it.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

namespace lockstep {

class Contention {
 public:
  using Clock = std::chrono::steady_clock;
  Contention();
  ~Contention();
  Contention(const Contention&) = delete;
  Contention& operator=(const Contention&) = delete;

  // Counts the calling thread in, where it is one of the first kMost, until this object ends. Where the system does not say how
  // long it waited, that is never seen.
  void watch_this_thread();
  void watch(const std::string& schedstat);  // the file of a thread

  // By one thread. The files are read every 20 ms at most; what was seen holds for a second.
  bool seen(Clock::time_point now) {
    if (now >= next_look_) look(now);
    return now < until_;
  }

  // Seen is a quarter of the time, all the threads' waiting added up; what is further back counts less, by 1/e each 100 ms.
  static constexpr std::chrono::milliseconds kBetween{20}, kMemory{100}, kHolds{1000};
  static constexpr double kShare = 0.25;

 private:
  void look(Clock::time_point now);

  static constexpr size_t kMost = 8;
  std::array<std::atomic<int>, kMost> files_;  // -1: none
  std::atomic<size_t> count_ = 0;              // of calls of watch()
  std::array<int64_t, kMost> waited_;          // ns, at the last look; -1: there was none
  double lately_ = 0;                          // ns that they waited
  Clock::time_point last_{}, next_look_{}, until_{};
};

}  // namespace lockstep
