// SPDX-License-Identifier: Apache-2.0
// Philox on vectors of counters (philox.h), and normals from them (normal.h): the same bits on every
// instruction set. Included by sources that are compiled once per instruction set.
#if defined(LOCKSTEP_KERNELS_CORE_PHILOX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_KERNELS_CORE_PHILOX_INL_H_
#undef LOCKSTEP_KERNELS_CORE_PHILOX_INL_H_
#else
#define LOCKSTEP_KERNELS_CORE_PHILOX_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>

#include "kernels/random/normal.h"
#include "kernels/random/philox.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

inline constexpr int64_t kCounters = 16;  // of a call: one vector of AVX-512
inline constexpr int64_t kDraws = 4 * kCounters;

#if HWY_TARGET == HWY_SCALAR

// out[4 * i + w] = word w of counter (index4 + i, sample), i < 16.
inline void words_along(const DrawKey& key, int64_t sample, int64_t index4, uint32_t* out) {
  for (int64_t i = 0; i < kCounters; ++i) {
    const Philox4 r = random4(key.seed, key.stream, key.step, sample, index4 + i);
    std::copy(r.x, r.x + 4, out + 4 * i);
  }
}

// out[16 * w + i] = word w of counter (index4, sample + i), i < 16.
inline void words_across(const DrawKey& key, int64_t sample, int64_t index4, uint32_t* out) {
  for (int64_t i = 0; i < kCounters; ++i) {
    const Philox4 r = random4(key.seed, key.stream, key.step, sample + i, index4);
    for (int64_t w = 0; w < 4; ++w) out[kCounters * w + i] = r.x[w];
  }
}

#else

using PhiloxTag = hn::CappedTag<uint32_t, kCounters>;
using PhiloxVec = hn::Vec<PhiloxTag>;

// Counters in the even lanes; what the odd lanes hold does not matter, since a product reads the even ones
// only. It leaves its low half in an even lane, its high half in the odd one above.
struct Counters {
  PhiloxVec x0, x1, x2, x3;
};

HWY_INLINE PhiloxVec philox_high(PhiloxTag d, PhiloxVec product) {
  const hn::Repartition<uint64_t, PhiloxTag> wide;
  return hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, product)));
}

HWY_INLINE void philox_round(PhiloxTag d, Counters& c, PhiloxVec key0, PhiloxVec key1) {
  const PhiloxVec p0 = hn::BitCast(d, hn::MulEven(c.x0, hn::Set(d, 0xD2511F53u)));
  const PhiloxVec p1 = hn::BitCast(d, hn::MulEven(c.x2, hn::Set(d, 0xCD9E8D57u)));
  c = {hn::Xor3(philox_high(d, p1), c.x1, key0), p1, hn::Xor3(philox_high(d, p0), c.x3, key1), p0};
}

HWY_INLINE PhiloxVec philox_merge(PhiloxTag d, PhiloxVec even, PhiloxVec odd) {
  const hn::Repartition<uint64_t, PhiloxTag> wide;
  return hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(hn::BitCast(wide, odd))), even);
}

// philox4x32_10 of Lanes(d) counters.
HWY_INLINE Counters philox(PhiloxTag d, const DrawKey& key, PhiloxVec x0, PhiloxVec x1) {
  const auto odd = [&](PhiloxVec v) { return philox_high(d, v); };
  const PhiloxVec step = hn::Set(d, static_cast<uint32_t>(key.step)), stream = hn::Set(d, key.stream);
  Counters a{x0, x1, step, stream}, b{odd(x0), odd(x1), step, stream};
  auto key0 = static_cast<uint32_t>(key.seed), key1 = static_cast<uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const PhiloxVec k0 = hn::Set(d, key0), k1 = hn::Set(d, key1);
    philox_round(d, a, k0, k1);
    philox_round(d, b, k0, k1);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {philox_merge(d, a.x0, b.x0), philox_merge(d, a.x1, b.x1), philox_merge(d, a.x2, b.x2),
          philox_merge(d, a.x3, b.x3)};
}

// Counters (index4 + i .., sample).
HWY_INLINE Counters philox_along(PhiloxTag d, const DrawKey& key, int64_t sample, int64_t index4) {
  return philox(d, key, hn::Iota(d, static_cast<uint32_t>(index4)),
                hn::Set(d, static_cast<uint32_t>(sample)));
}

// out[4 * i + w] = word w of counter (index4 + i, sample), i < 16.
inline void words_along(const DrawKey& key, int64_t sample, int64_t index4, uint32_t* out) {
  const PhiloxTag d;
  for (int64_t i = 0; i < kCounters; i += static_cast<int64_t>(hn::Lanes(d))) {
    const Counters r = philox_along(d, key, sample, index4 + i);
    hn::StoreInterleaved4(r.x0, r.x1, r.x2, r.x3, d, out + 4 * i);
  }
}

// out[16 * w + i] = word w of counter (index4, sample + i), i < 16.
inline void words_across(const DrawKey& key, int64_t sample, int64_t index4, uint32_t* out) {
  const PhiloxTag d;
  const PhiloxVec x0 = hn::Set(d, static_cast<uint32_t>(index4));
  for (int64_t i = 0; i < kCounters; i += static_cast<int64_t>(hn::Lanes(d))) {
    const Counters r = philox(d, key, x0, hn::Iota(d, static_cast<uint32_t>(sample + i)));
    hn::StoreU(r.x0, d, out + i);
    hn::StoreU(r.x1, d, out + kCounters + i);
    hn::StoreU(r.x2, d, out + 2 * kCounters + i);
    hn::StoreU(r.x3, d, out + 3 * kCounters + i);
  }
}

#endif

#if HWY_NATIVE_FMA

using NormalTag = hn::Rebind<float, PhiloxTag>;
using NormalVec = hn::Vec<NormalTag>;

// normal::log
HWY_INLINE NormalVec normal_log(NormalTag d, NormalVec u) {
  using namespace normal;
  const hn::Rebind<int32_t, NormalTag> di;
  const auto bits = hn::BitCast(di, u);
  const auto exponent = hn::ShiftRight<23>(hn::Sub(bits, hn::Set(di, kRootHalf)));
  const NormalVec f = hn::Sub(hn::BitCast(d, hn::Sub(bits, hn::ShiftLeft<23>(exponent))), hn::Set(d, 1.0f));
  const NormalVec k = hn::ConvertTo(d, exponent);
  NormalVec q = hn::Set(d, kLog7);
  for (float next : {kLog6, kLog5, kLog4, kLog3, kLog2, kLog1, kLog0, -0.5f})
    q = hn::MulAdd(q, f, hn::Set(d, next));
  q = hn::MulAdd(q, hn::Mul(f, f), f);
  return hn::MulAdd(k, hn::Set(d, kLn2), hn::MulAdd(k, hn::Set(d, kLn2Rest), q));
}

// normal::radius. A word is converted by halves, with one rounding.
HWY_INLINE NormalVec normal_radius(NormalTag d, PhiloxVec word) {
  const hn::Rebind<int32_t, NormalTag> di;
  const PhiloxTag du;
  const auto high = hn::ConvertTo(d, hn::BitCast(di, hn::ShiftRight<16>(word)));
  const auto low = hn::ConvertTo(d, hn::BitCast(di, hn::And(word, hn::Set(du, 0xFFFFu))));
  const auto whole = hn::MulAdd(high, hn::Set(d, 0x1p16f), low);
  const auto u = hn::MulAdd(whole, hn::Set(d, 0x1p-32f), hn::Set(d, 0x1p-33f));
  return hn::Sqrt(hn::Mul(hn::Set(d, -2.0f), normal_log(d, u)));
}

// A pair of normals: normal::radius of one word times normal::sincos of the other.
HWY_INLINE void normal_pair(NormalTag d, PhiloxVec radius_word, PhiloxVec turn, NormalVec& x, NormalVec& y) {
  using namespace normal;
  const hn::Rebind<int32_t, NormalTag> di;
  const PhiloxTag du;
  const PhiloxVec quadrant = hn::ShiftRight<30>(hn::Add(turn, hn::Set(du, 1u << 29)));
  const PhiloxVec rest = hn::Sub(turn, hn::ShiftLeft<30>(quadrant));
  const NormalVec t = hn::Mul(hn::ConvertTo(d, hn::BitCast(di, rest)), hn::Set(d, 0x1p-29f));
  const NormalVec z = hn::Mul(t, t);
  NormalVec s = hn::Set(d, kSin2);
  for (float next : {kSin1, kSin0, kQuarterPiRest}) s = hn::MulAdd(z, s, hn::Set(d, next));
  s = hn::MulAdd(t, hn::Set(d, kQuarterPi), hn::Mul(t, s));
  NormalVec c = hn::Set(d, kCos3);
  for (float next : {kCos2, kCos1, kCos0, 1.0f}) c = hn::MulAdd(z, c, hn::Set(d, next));
  // Bit 0 of the quadrant swaps sine and cosine, bit 1 of it and of the next one are their signs.
  const auto swap =
      hn::MaskFromVec(hn::BitCast(d, hn::BroadcastSignBit(hn::BitCast(di, hn::ShiftLeft<31>(quadrant)))));
  const auto sign_of = [&](PhiloxVec q) { return hn::BitCast(d, hn::ShiftLeft<31>(hn::ShiftRight<1>(q))); };
  const NormalVec sine = hn::Xor(hn::IfThenElse(swap, c, s), sign_of(quadrant));
  const NormalVec cosine = hn::Xor(hn::IfThenElse(swap, s, c), sign_of(hn::Add(quadrant, hn::Set(du, 1u))));
  const NormalVec r = normal_radius(d, radius_word);
  x = hn::Mul(r, cosine);
  y = hn::Mul(r, sine);
}

// out[4 * i + k] = number k of normal4 of counter (index4 + i, sample), i < 16.
inline void normals_along(const DrawKey& key, int64_t sample, int64_t index4, float* out) {
  const PhiloxTag du;
  const NormalTag d;
  for (int64_t i = 0; i < kCounters; i += static_cast<int64_t>(hn::Lanes(d))) {
    const Counters r = philox_along(du, key, sample, index4 + i);
    NormalVec x0, x1, x2, x3;
    normal_pair(d, r.x0, r.x1, x0, x1);
    normal_pair(d, r.x2, r.x3, x2, x3);
    hn::StoreInterleaved4(x0, x1, x2, x3, d, out + 4 * i);
  }
}

#else

// Without fma instructions a library function rounds once, too.
inline void normals_along(const DrawKey& key, int64_t sample, int64_t index4, float* out) {
  HWY_ALIGN uint32_t words[kDraws];
  words_along(key, sample, index4, words);
  for (int64_t i = 0; i < kDraws; i += 4) {
    const Normal4 n = normal4({{words[i], words[i + 1], words[i + 2], words[i + 3]}});
    std::copy(n.x, n.x + 4, out + i);
  }
}

#endif

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
