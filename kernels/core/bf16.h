// SPDX-License-Identifier: Apache-2.0
// bf16: the upper half of a float. Storage only; arithmetic is done in float.
//
// Rounds to nearest, ties to even; every NaN becomes 0x7FFF, as the GPU's own conversion has it, so that
// host and device give the same bits.
#pragma once

#include <bit>
#include <cstdint>

#ifdef __CUDACC__
#define LOCKSTEP_BF16_FUNCTION __host__ __device__ __forceinline__
#else
#define LOCKSTEP_BF16_FUNCTION __attribute__((always_inline))
#endif

namespace lockstep {

struct bf16 {
  uint16_t bits;

  bf16() = default;  // trivial: arrays of it may be __shared__
  LOCKSTEP_BF16_FUNCTION explicit bf16(float x) {
#ifdef __CUDA_ARCH__
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#else
    const auto u = std::bit_cast<uint32_t>(x);
    bits = x == x ? static_cast<uint16_t>((u + 0x7FFF + (u >> 16 & 1)) >> 16) : uint16_t{0x7FFF};
#endif
  }
  LOCKSTEP_BF16_FUNCTION explicit operator float() const {
#ifdef __CUDA_ARCH__
    return __uint_as_float(static_cast<uint32_t>(bits) << 16);
#else
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
#endif
  }
};

}  // namespace lockstep

#undef LOCKSTEP_BF16_FUNCTION
