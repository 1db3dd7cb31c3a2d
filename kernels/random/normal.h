// SPDX-License-Identifier: Apache-2.0
// Standard normal numbers from Philox words, by Box and Muller's transform ("A note on the generation of
// random normal deviates", 1958): the same bits in C++, on Highway's vectors (philox-inl.h) and on CUDA.
//
// Logarithm, sine and cosine are our own polynomials (coefficients: minimax by Lawson's algorithm, rounded to
// float one after the other), and every multiplication followed by an addition is an explicit fma, whose
// single rounding is exact everywhere. So no compiler has anything left to contract; conversions and square
// roots round to nearest everywhere. The logarithm is right to 1 ulp, sine and cosine to 1.5, a normal to
// 3e-7 of its pair's radius; none is larger than 6.77.
#pragma once

#include <cmath>

#include "kernels/random/philox.h"

namespace lockstep {

namespace normal {

inline constexpr float kLn2 = 0x1.62e430p-1f, kLn2Rest = -0x1.05c610p-29f;
// ln(1 + f) = f - f^2 / 2 + f^3 (kLog0 + kLog1 f + ...), 1/sqrt(2) <= 1 + f < sqrt(2); relative error 6e-9
inline constexpr float kLog0 = 0x1.555554p-2f, kLog1 = -0x1.000226p-2f, kLog2 = 0x1.99a01cp-3f,
                       kLog3 = -0x1.54728ap-3f, kLog4 = 0x1.22d92ep-3f, kLog5 = -0x1.0d8242p-3f,
                       kLog6 = 0x1.055ec6p-3f, kLog7 = -0x1.38c9dep-4f;
// sin(pi/4 t) = t (pi/4 + kSin0 z + kSin1 z^2 + ...), z = t^2, |t| <= 1; relative error 4e-9
inline constexpr float kQuarterPi = 0x1.921fb6p-1f, kQuarterPiRest = -0x1.777a5cp-26f;
inline constexpr float kSin0 = -0x1.4abbbep-4f, kSin1 = 0x1.465facp-9f, kSin2 = -0x1.2db5a6p-15f;
// cos(pi/4 t) = 1 + kCos0 z + kCos1 z^2 + ...; error 5e-10
inline constexpr float kCos0 = -0x1.3bd3ccp-2f, kCos1 = 0x1.03c1b0p-6f, kCos2 = -0x1.55b2b6p-12f,
                       kCos3 = 0x1.d4f7eep-19f;
inline constexpr int32_t kRootHalf = 0x3f3504f3;  // the bits of sqrt(1/2)

// ln u, u positive and not denormal.
LOCKSTEP_HOST_DEVICE inline float log(float u) {
  const auto bits = __builtin_bit_cast(int32_t, u);
  const int32_t exponent = (bits - kRootHalf) >> 23;
  const float f = __builtin_bit_cast(float, bits - exponent * (1 << 23)) - 1;  // exact
  const auto k = static_cast<float>(exponent);
  float q = kLog7;
  q = fmaf(q, f, kLog6);
  q = fmaf(q, f, kLog5);
  q = fmaf(q, f, kLog4);
  q = fmaf(q, f, kLog3);
  q = fmaf(q, f, kLog2);
  q = fmaf(q, f, kLog1);
  q = fmaf(q, f, kLog0);
  q = fmaf(q, f, -0.5f);
  return fmaf(k, kLn2, fmaf(k, kLn2Rest, fmaf(q, f * f, f)));
}

struct SinCos {
  float sin, cos;
};

// Of turn / 2^32 of a full turn.
LOCKSTEP_HOST_DEVICE inline SinCos sincos(uint32_t turn) {
  const uint32_t quadrant = (turn + (1u << 29)) >> 30;  // the nearest multiple of a quarter turn
  const float t = static_cast<float>(static_cast<int32_t>(turn - (quadrant << 30))) * 0x1p-29f, z = t * t;
  const float s = fmaf(t, kQuarterPi, t * fmaf(z, fmaf(z, fmaf(z, kSin2, kSin1), kSin0), kQuarterPiRest));
  const float c = fmaf(z, fmaf(z, fmaf(z, fmaf(z, kCos3, kCos2), kCos1), kCos0), 1.0f);
  const bool swap = (quadrant & 1) != 0;
  const float sine = swap ? c : s, cosine = swap ? s : c;
  return {(quadrant & 2) != 0 ? -sine : sine, ((quadrant + 1) & 2) != 0 ? -cosine : cosine};
}

// sqrt(-2 ln u), u = (word + 1/2) / 2^32, word and sum rounded to float; u is never 0.
LOCKSTEP_HOST_DEVICE inline float radius(uint32_t word) {
  return sqrtf(-2 * log(fmaf(static_cast<float>(word), 0x1p-32f, 0x1p-33f)));
}

}  // namespace normal

struct Normal4 {
  float x[4];
};

// Four independent normals: words 0 and 2 give the radius of a pair, 1 and 3 its angle.
LOCKSTEP_HOST_DEVICE inline Normal4 normal4(const Philox4& words) {
  const float r0 = normal::radius(words.x[0]), r1 = normal::radius(words.x[2]);
  const normal::SinCos a0 = normal::sincos(words.x[1]), a1 = normal::sincos(words.x[3]);
  return {{r0 * a0.cos, r0 * a0.sin, r1 * a1.cos, r1 * a1.sin}};
}

}  // namespace lockstep
