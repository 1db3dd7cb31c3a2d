// SPDX-License-Identifier: Apache-2.0
#include "kernels/random/philox.h"

#include <gtest/gtest.h>

namespace lockstep::philox_test {
namespace {

void expect_words(const Philox4& got, std::array<uint32_t, 4> expected) {
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(got.x[i], expected[i]) << "word " << i;
}

// The known answers that Random123, the authors' own library, publishes for philox4x32-10.
TEST(Philox, PublishedKnownAnswers) {
  expect_words(philox4x32_10({{0, 0, 0, 0}}, 0, 0), {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  expect_words(philox4x32_10({{~0u, ~0u, ~0u, ~0u}}, ~0u, ~0u),
               {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  expect_words(philox4x32_10({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0),
               {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

// What goes where in counter and key: every checkpoint's numbers depend on it.
TEST(Philox, CounterAndKeyLayout) {
  const uint64_t seed = 0x123456789abcdef0;
  expect_words(random4(seed, stream::kDropout, 3, 5, 7), {0x045d99d0, 0xe5ec74f1, 0x711d54c3, 0x805ede28});
  for (int64_t wrap : {int64_t{0}, int64_t{1} << 32}) {
    const Philox4 a = random4(seed, 9, 3 + wrap, 5, 7);
    expect_words(philox4x32_10({{7, 5, 3, 9}}, 0x9abcdef0, 0x12345678), {a.x[0], a.x[1], a.x[2], a.x[3]});
  }
}

TEST(Philox, UniformHas24BitsAndStaysBelowOne) {
  EXPECT_EQ(uniform01(0), 0.0f);
  EXPECT_EQ(uniform01(0xff), 0.0f);
  EXPECT_EQ(uniform01(0x100), 0x1p-24f);
  EXPECT_EQ(uniform01(0x80000000), 0.5f);
  EXPECT_EQ(uniform01(~0u), 1 - 0x1p-24f);
}

// Chi-squared over 256 cells of 2^20 draws: mean 255, standard deviation 22.6; 5 sigma either way.
TEST(Philox, UniformOverTopAndBottomBytes) {
  for (int shift : {0, 24}) {
    std::array<int, 256> count{};
    for (int64_t i = 0; i < 1 << 18; ++i)
      for (uint32_t word : random4(42, stream::kInit, 0, 0, i).x) ++count[word >> shift & 255];
    double chi = 0;
    for (int c : count) chi += (c - 4096.0) * (c - 4096.0) / 4096.0;
    EXPECT_NEAR(chi, 255, 5 * 22.6) << "shift " << shift;
  }
}

}  // namespace
}  // namespace lockstep::philox_test
