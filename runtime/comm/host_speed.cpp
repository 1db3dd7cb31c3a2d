// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/host_speed.h"

#include <algorithm>
#include <span>
#include <thread>
#include <vector>

#include "kernels/simd/sum.h"
#include "runtime/device/cpu_topology.h"
#include "runtime/device/memory.h"
#include "runtime/device/spin_barrier.h"
#include "runtime/telemetry/median.h"
#include "runtime/telemetry/trace.h"

namespace lockstep {
namespace {

constexpr int64_t kFloats = 1 << 20;
constexpr int kSums = 15, kMeetings = 1000;
constexpr int kMostTried = 64;  // ranks

double seconds_since(int64_t begin_ns) { return static_cast<double>(Trace::now_ns() - begin_ns) * 1e-9; }

double measure_own_sum() {
  const AlignedBuffer own(kFloats * 4), received(kFloats * 4);
  const std::span x(own.as<float>(), kFloats), y(received.as<float>(), kFloats);
  std::vector<double> seconds;
  for (int i = 0; i < kSums; ++i) {
    std::fill(x.begin(), x.end(), 1.0f);
    std::fill(y.begin(), y.end(), static_cast<float>(i));
    const int64_t begin = Trace::now_ns();
    for (size_t k = 0; k < x.size(); ++k) x[k] += y[k];
    seconds.push_back(seconds_since(begin));
  }
  return median(seconds) / static_cast<double>(x.size_bytes());
}

}  // namespace

HostSpeed measure_host_speed(int ranks, int cores) {
  HostSpeed speed;
  speed.sum_seconds_per_byte = measure_own_sum();
  if (ranks <= 1) return speed;
  std::vector<AlignedBuffer> memory;
  std::vector<float*> parts;
  const int tried = std::min(ranks, kMostTried);
  for (int r = 0; r < tried; ++r) {
    memory.emplace_back(kFloats * 4);
    parts.push_back(memory.back().as<float>());
  }
  const int threads = std::min(tried, std::max(1, cores));
  SpinBarrier barrier(threads);
  std::vector<double> sums;
  const auto work = [&](int t) {
    take_share_of_cores(t, threads);
    barrier.meet();
    int64_t begin = Trace::now_ns();
    for (int i = 0; i < kMeetings; ++i) barrier.meet();
    if (t == 0) speed.meeting_seconds = seconds_since(begin) / kMeetings;
    for (int i = 0; i < kSums; ++i) {
      for (int r = t; r < tried; r += threads)
        std::fill_n(parts[static_cast<size_t>(r)], kFloats, static_cast<float>(i));
      barrier.meet();
      begin = Trace::now_ns();
      sum_into_all(parts.data(), tried, kFloats * t / threads, kFloats * (t + 1) / threads);
      barrier.meet();
      if (t == 0) sums.push_back(seconds_since(begin));
    }
  };
  std::vector<std::jthread> others;
  for (int t = 0; t < threads; ++t) others.emplace_back(work, t);  // none is this one: affinities stay theirs
  others.clear();
  speed.shared_sum_seconds_per_byte =
      std::max(0.0, median(sums) - speed.meeting_seconds) / static_cast<double>(kFloats * 4) * ranks / tried;
  return speed;
}

}  // namespace lockstep
