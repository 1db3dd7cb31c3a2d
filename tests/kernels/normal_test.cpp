// SPDX-License-Identifier: Apache-2.0
// Normals: right in distribution, and the same bits wherever they are drawn.
#include "kernels/random/normal.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "kernels/core/cpu_target.h"
#include "kernels/core/kernel.h"
#include "kernels/core/step_state.h"
#include "kernels/diffusion/noise.h"
#include "tests/support/combinations.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing::normal_test {
namespace {

constexpr int64_t kSamples = 16, kEach = 1 << 16, kAll = kSamples * kEach;
constexpr uint64_t kSeed = 0x0123456789abcdef;
constexpr int64_t kStep = 3;

uint64_t hash_of(const float* x, int64_t n) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a, by words
  for (int64_t i = 0; i < n; ++i) hash = (hash ^ __builtin_bit_cast(uint32_t, x[i])) * 0x100000001b3;
  return hash;
}

// A million, one by one, by the scalar code.
const std::vector<float>& normals() {
  static const std::vector<float> all = [] {
    std::vector<float> x;
    for (int64_t sample = 0; sample < kSamples; ++sample)
      for (int64_t i = 0; i < kEach / 4; ++i) {
        const Normal4 n = normal4(random4(kSeed, stream::kNoise, kStep, sample, i));
        x.insert(x.end(), n.x, n.x + 4);
      }
    return x;
  }();
  return all;
}

// A run's noise, and with it every checkpoint, depends on these bits.
constexpr uint64_t kHash = 3201264265155322049;

TEST(Normal, TheSameBitsInScalarCodeAndOnEveryInstructionSet) {
  EXPECT_EQ(hash_of(normals().data(), kAll), kHash);
  const int64_t initial = cpu_target();
  for (int64_t target : targets_to_test()) {
    set_cpu_target(target);
    std::vector<float> x(kAll);
    for (int64_t n = 0; n < kSamples; ++n) draw_noise(kSeed, kStep, n, kEach, x.data() + n * kEach);
    EXPECT_EQ(hash_of(x.data(), kAll), kHash) << cpu_target_name(target);
  }
  set_cpu_target(initial);
}

TEST(Normal, TheSameBitsInGpuKernels) {
  const TensorSpec state_spec{DType::u8, {sizeof(StepState)}, Layout::plain};
  const Buffer x0(f32({kSamples, 1, 256, 256})), state(state_spec);
  std::fill_n(x0.as<float>(), kAll, 0.0f);
  *state.as<StepState>() = {.seed = kSeed, .step = kStep, .global_samples = kSamples};
  const TensorSpec samples_i32{DType::i32, {kSamples}, Layout::plain};
  const auto out =
      run_kernel("diffusion_noise", "philox", DiffusionNoiseParams{.alphas_cumprod = {0.5}}, {x0, state},
                 {x0.spec(), x0.spec(), samples_i32, f32({kSamples})}, 1, Device::simt);
  EXPECT_EQ(hash_of(out[1].as<float>(), kAll), kHash);  // the target: the noise itself
}

TEST(Normal, AnyNumberOfElementsIsThePrefixOfMore) {
  std::vector<float> longest(200);
  draw_noise(1, 2, 3, 200, longest.data());
  for (int64_t elements : {0, 1, 3, 4, 63, 64, 65, 130}) {
    std::vector<float> x(static_cast<size_t>(elements) + 1, 9.0f);
    draw_noise(1, 2, 3, elements, x.data());
    EXPECT_TRUE(std::equal(x.begin(), x.end() - 1, longest.begin())) << elements;
    EXPECT_EQ(x.back(), 9.0f) << elements;
  }
}

// |got - exact| in units of the last place of the exact result.
double ulps(float got, double exact) {
  const double unit = std::ldexp(1.0, std::max(std::ilogb(exact), -126) - 23);
  return std::fabs(double{got} - exact) / unit;
}

TEST(Normal, LogarithmIsRightToOneUlp) {
  double worst = 0;
  const auto check = [&](float u) {
    if (u != 1) worst = std::max(worst, ulps(normal::log(u), std::log(double{u})));
  };
  // Every exponent that a word can give, 10,000 mantissas each; then every float of the last 10,000 before 1.
  for (uint32_t bits = __builtin_bit_cast(uint32_t, 0x1p-33f); bits <= 0x3f800000; bits += 839)
    check(__builtin_bit_cast(float, bits));
  for (uint32_t back = 1; back < 10000; ++back) check(__builtin_bit_cast(float, 0x3f800000 - back));
  EXPECT_LE(worst, 1.0);
  EXPECT_EQ(normal::log(1.0f), 0);
}

// The angle's own rounding to float is half a unit of it.
TEST(Normal, SineAndCosineAreRightToOneAndAHalfUlp) {
  double worst = 0;
  const auto check = [&](uint32_t turn) {
    const auto [s, c] = normal::sincos(turn);
    // Reduced to an eighth of a turn, where double's own functions are exact enough near the zeros.
    const uint32_t quadrant = (turn + (1u << 29)) >> 30;
    const double angle = static_cast<int32_t>(turn - (quadrant << 30)) * (std::numbers::pi * 0x1p-31);
    const double sine = std::sin(angle), cosine = std::cos(angle);
    const double exact_s[] = {sine, cosine, -sine, -cosine}, exact_c[] = {cosine, -sine, -cosine, sine};
    const uint32_t q = quadrant & 3;
    if (angle == 0) {
      EXPECT_EQ(double{s}, std::round(exact_s[q]));
      EXPECT_EQ(double{c}, std::round(exact_c[q]));
    } else {
      worst = std::max({worst, ulps(s, exact_s[q]), ulps(c, exact_c[q])});
    }
  };
  for (int64_t i = 0; i < 1 << 20; ++i) check(static_cast<uint32_t>(i * 4093));
  for (uint32_t quarter = 0; quarter < 4; ++quarter)
    for (int32_t near = -300; near <= 300; ++near) check((quarter << 30) + static_cast<uint32_t>(near));
  EXPECT_LE(worst, 1.5);
}

TEST(Normal, NumbersAreNearTheExactTransform) {
  double worst = 0;
  for (int64_t i = 0; i < 1 << 16; ++i) {
    const Philox4 w = random4(kSeed, 1, 0, 0, i);
    const float u = static_cast<float>(static_cast<double>(static_cast<float>(w.x[0])) * 0x1p-32 + 0x1p-33);
    const double radius = std::sqrt(-2 * std::log(double{u})), angle = w.x[1] * (std::numbers::pi * 0x1p-31);
    const Normal4 n = normal4(w);
    worst = std::max({worst, std::fabs(double{n.x[0]} - radius * std::cos(angle)) / std::max(radius, 1e-3),
                      std::fabs(double{n.x[1]} - radius * std::sin(angle)) / std::max(radius, 1e-3)});
  }
  // Of the pair's radius: half the logarithm's ulp, sine's or cosine's, and two more roundings.
  EXPECT_LE(worst, 3e-7);
}

TEST(Normal, ExtremeWords) {
  EXPECT_EQ(normal::radius(~0u), 0);
  EXPECT_NEAR(normal::radius(0), std::sqrt(66 * std::numbers::ln2), 1e-6);
  EXPECT_EQ(normal4({{~0u, 5, ~0u, 6}}).x[0], 0);
  for (uint32_t w : {0u, 1u, 0x7fffffffu, 0x80000000u, ~0u})
    for (uint32_t t : {0u, 0x3fffffffu, 0x40000000u, 0x80000000u, ~0u})
      for (float x : normal4({{w, t, t, w}}).x)
        EXPECT_TRUE(std::isfinite(x) && std::fabs(x) < 6.77f) << w << " " << t;
}

// Moments of 2^20 independent normals: each within 5 standard deviations of what they are on average.
TEST(Normal, Moments) {
  const std::vector<float>& x = normals();
  const double n = static_cast<double>(kAll);
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
  for (float v : x) {
    const double d = double{v};
    m1 += d, m2 += d * d, m3 += d * d * d, m4 += d * d * d * d;
  }
  EXPECT_NEAR(m1 / n, 0, 5 * std::sqrt(1 / n));
  EXPECT_NEAR(m2 / n, 1, 5 * std::sqrt(2 / n));
  EXPECT_NEAR(m3 / n, 0, 5 * std::sqrt(15 / n));
  EXPECT_NEAR(m4 / n, 3, 5 * std::sqrt(96 / n));
}

// Kolmogorov and Smirnov's distance between the sample and the normal distribution: above 1.95 / sqrt(n) in
// one of a thousand samples.
TEST(Normal, Distribution) {
  std::vector<float> x = normals();
  std::sort(x.begin(), x.end());
  const double n = static_cast<double>(kAll);
  double distance = 0;
  for (int64_t i = 0; i < kAll; ++i) {
    const double p = 0.5 * std::erfc(-double{x[static_cast<size_t>(i)]} / std::numbers::sqrt2);
    const auto rank = static_cast<double>(i);
    distance = std::max({distance, p - rank / n, (rank + 1) / n - p});
  }
  EXPECT_LT(distance, 1.95 / std::sqrt(n));
  // The tails, which the distance hardly sees: counts are binomial.
  for (double beyond : {3.0, 4.0}) {
    const double expected = n * std::erfc(beyond / std::numbers::sqrt2);
    const auto count = std::count_if(x.begin(), x.end(), [&](float v) { return std::fabs(v) > beyond; });
    EXPECT_NEAR(static_cast<double>(count), expected, 5 * std::sqrt(expected)) << beyond;
  }
}

// Neighbours in a pair, in a counter, in the next counter and in the next sample: neither they nor their
// squares (which two numbers of one radius would share) go together.
TEST(Normal, NeighboursAreIndependent) {
  const std::vector<float>& x = normals();
  for (int64_t apart : {int64_t{1}, int64_t{2}, int64_t{3}, int64_t{4}, kEach}) {
    double product = 0, squares = 0;
    const int64_t pairs = kAll - apart;
    for (int64_t i = 0; i < pairs; ++i) {
      const double a = double{x[static_cast<size_t>(i)]}, b = double{x[static_cast<size_t>(i + apart)]};
      product += a * b, squares += (a * a - 1) * (b * b - 1);
    }
    const double root = std::sqrt(static_cast<double>(pairs));
    EXPECT_NEAR(product / root, 0, 5) << apart;      // variance 1 a pair
    EXPECT_NEAR(squares / root, 0, 5 * 2) << apart;  // variance 4 a pair
  }
}

TEST(Normal, SeedStepAndSampleChangeTheNumbers) {
  const auto draw = [](uint64_t seed, int64_t step, int64_t sample) {
    std::vector<float> x(64);
    draw_noise(seed, step, sample, 64, x.data());
    return x;
  };
  const auto base = draw(1, 1, 1);
  for (const auto& other : {draw(2, 1, 1), draw(uint64_t{1} << 32 | 1, 1, 1), draw(1, 2, 1), draw(1, 1, 2)})
    for (size_t i = 0; i < 64; ++i) EXPECT_NE(other[i], base[i]);
}

}  // namespace
}  // namespace lockstep::testing::normal_test
