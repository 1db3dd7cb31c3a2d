// SPDX-License-Identifier: Apache-2.0
#include "bench/bandwidth.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/bandwidth.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/core/parallel.h"
#include "kernels/peak/best_rate.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// n: a multiple of 1024.
float sum_floats(const float* x, size_t n) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
  for (size_t i = 0; i < n; i += 8 * lanes) {
    s0 = hn::Add(s0, hn::Load(d, x + i)), s1 = hn::Add(s1, hn::Load(d, x + i + lanes));
    s2 = hn::Add(s2, hn::Load(d, x + i + 2 * lanes)), s3 = hn::Add(s3, hn::Load(d, x + i + 3 * lanes));
    s4 = hn::Add(s4, hn::Load(d, x + i + 4 * lanes)), s5 = hn::Add(s5, hn::Load(d, x + i + 5 * lanes));
    s6 = hn::Add(s6, hn::Load(d, x + i + 6 * lanes)), s7 = hn::Add(s7, hn::Load(d, x + i + 7 * lanes));
  }
  const auto sum =
      hn::Add(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)), hn::Add(hn::Add(s4, s5), hn::Add(s6, s7)));
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {

HWY_EXPORT(sum_floats);

namespace {

using Floats = std::unique_ptr<float[], decltype(&std::free)>;

constexpr size_t kStep = 1024;  // floats

// Written by the thread that will use it, so that it lies on that thread's memory node.
std::vector<Floats> buffers(int threads, size_t n) {
  std::vector<Floats> all;
  for (int t = 0; t < threads; ++t)
    all.emplace_back(static_cast<float*>(std::aligned_alloc(kStep * sizeof(float), n * sizeof(float))),
                     &std::free);
  parallel_for(threads, threads, [&](int64_t t) { std::fill_n(all[static_cast<size_t>(t)].get(), n, 1.0f); });
  return all;
}

}  // namespace

Bandwidth measure_bandwidth(int threads, int64_t bytes) {
  constexpr double kBytesOfATry = 256e6;
  const auto share = static_cast<size_t>(bytes) / static_cast<size_t>(threads) / sizeof(float);
  const size_t half = std::max(kStep, share / 2 / kStep * kStep), n = 2 * half;
  const auto memory = buffers(threads, n);
  const double each =
      static_cast<double>(n) * sizeof(float);  // bytes that a round reads, or reads and writes
  const long rounds = std::max(1L, static_cast<long>(kBytesOfATry / each));
  const auto mine = [&] { return memory[static_cast<size_t>(thread_index())].get(); };
  Bandwidth b;
  b.read_gb_s = best_rate(threads, rounds, [&](long times, float* result) {
    const float* x = mine();
    for (long i = 0; i < times; ++i) *result += HWY_DYNAMIC_DISPATCH(sum_floats)(x, n);
    return each * static_cast<double>(times);
  });
  b.copy_gb_s = best_rate(threads, rounds, [&](long times, float* result) {
    float* x = mine();
    for (long i = 0; i < times; ++i) std::memcpy(x + half, x, half * sizeof(float)), x[0] += 1;
    *result = x[half];
    return each * static_cast<double>(times);
  });
  return b;
}

}  // namespace lockstep
#endif
