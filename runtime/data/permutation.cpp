// SPDX-License-Identifier: Apache-2.0
// A Feistel network over the smallest power of two that holds count, with cycle walking (Black, Rogaway:
// "Ciphers with arbitrary finite domains", CT-RSA 2002): while the result lies outside [0, count), encrypt
// again. Round keys come from Philox; a round's function is the 64-bit finaliser of SplitMix64 (Steele, Lea,
// Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014), as Philox itself would cost four
// times as much.
#include "runtime/data/permutation.h"

#include <algorithm>
#include <bit>

#include "kernels/core/error.h"
#include "kernels/random/philox.h"

namespace lockstep {
namespace {

constexpr int kRounds = 8;
// On a domain of two or three bits the network reaches few of the permutations. Walking over a larger one
// makes the small ones uniform too, at no cost that matters: they have few positions.
constexpr int kMinBits = 8;

uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace

int64_t permute(int64_t count, uint64_t seed, uint32_t stream, int64_t number, int64_t position) {
  LOCKSTEP_ASSERT(position >= 0 && position < count, "position {} of {}", position, count);
  uint32_t keys[kRounds];
  for (int i = 0; i < kRounds / 4; ++i) {
    const Philox4 draw = random4(seed, stream, number, 0, i);
    std::copy_n(draw.x, 4, keys + 4 * i);
  }
  const int bits = std::max(kMinBits, static_cast<int>(std::bit_width(static_cast<uint64_t>(count - 1))));
  const int low_bits = bits / 2;
  const uint64_t low_mask = (uint64_t{1} << low_bits) - 1;
  const uint64_t high_mask = (uint64_t{1} << (bits - low_bits)) - 1;
  auto value = static_cast<uint64_t>(position);
  do {
    uint64_t low = value & low_mask, high = value >> low_bits;
    for (int round = 0; round < kRounds; round += 2) {
      high ^= mix(uint64_t{keys[round]} << 32 ^ low) & high_mask;
      low ^= mix(uint64_t{keys[round + 1]} << 32 ^ high) & low_mask;
    }
    value = high << low_bits | low;
  } while (value >= static_cast<uint64_t>(count));
  return static_cast<int64_t>(value);
}

}  // namespace lockstep
