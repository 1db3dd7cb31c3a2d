// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers:
// as easy as 1, 2, 3", SC 2011). A draw is a pure function of (seed, stream, step, sample, index), so
// it does not depend on rank, thread or layout. Compiles for host and CUDA.
#pragma once

#include <array>
#include <cstdint>

#ifdef __CUDACC__
#define LOCKSTEP_HOST_DEVICE __host__ __device__
#else
#define LOCKSTEP_HOST_DEVICE
#endif

namespace lockstep {

struct Philox4 {
  uint32_t x[4];
};

LOCKSTEP_HOST_DEVICE inline Philox4 philox4x32_10(Philox4 counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * counter.x[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * counter.x[2];
    counter = {{static_cast<uint32_t>(p1 >> 32) ^ counter.x[1] ^ key0, static_cast<uint32_t>(p1),
                static_cast<uint32_t>(p0 >> 32) ^ counter.x[3] ^ key1, static_cast<uint32_t>(p0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Streams keep independent uses of one seed apart. Dropout layer i uses kDropout + i.
namespace stream {
inline constexpr uint32_t kInit = 0x1000, kShuffle = 0x2000, kSplit = 0x3000, kAugment = 0x5000,
                          kNoise = 0x6000, kTimestep = 0x7000, kLabelDropout = 0x8000, kCaption = 0x9000,
                          kScene = 0xA000, kPosterior = 0xB000, kDropout = 0x10000;
}

// Four draws for `index`/4 of `sample` at `step`: counter = (index/4, sample, step low, stream),
// key = seed. Steps from 2^32 on repeat the numbers of 2^32 steps before.
LOCKSTEP_HOST_DEVICE inline Philox4 random4(uint64_t seed, uint32_t stream, int64_t step, int64_t sample,
                                            int64_t index4) {
  return philox4x32_10(
      {{static_cast<uint32_t>(index4), static_cast<uint32_t>(sample), static_cast<uint32_t>(step), stream}},
      static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

// What the draws of one use at one step have in common.
struct DrawKey {
  uint64_t seed;
  uint32_t stream;
  int64_t step;
};

// Uniform in [0, 1) with 24 bits: the same float on every device.
LOCKSTEP_HOST_DEVICE inline float uniform01(uint32_t bits) {
  return static_cast<float>(bits >> 8) * 0x1p-24f;
}

}  // namespace lockstep
