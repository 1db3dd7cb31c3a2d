// SPDX-License-Identifier: Apache-2.0
// What device_code.h's words give on the executor, against plain loops; the same kernels watched have no
// findings. All values are small integers, so every comparison is exact.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <ctime>
#include <vector>

#include "kernels/core/bf16.h"
#include "tests/kernels/gpu/kernels.h"
#include "tests/kernels/gpu/memory.h"

namespace lockstep::words_test {
namespace {

class Words : public ::testing::TestWithParam<bool> {
 protected:
  // Runs the kernel on memory prepared by `before`; watched where the parameter says so.
  void run(const std::string& name) {
    gpu_watch::take_findings();
    const TestKernels kernels = GetParam() ? simt_watched::word_kernels() : simt::word_kernels();
    kernels.at(name)(memory_.memory);
    for (const auto& f : gpu_watch::take_findings()) ADD_FAILURE() << f.text();
  }
  float* x() { return memory_.memory.x; }
  float* y() { return memory_.memory.y; }
  int* i() { return memory_.memory.i; }

 private:
  WatchedMemory memory_;
};
INSTANTIATE_TEST_SUITE_P(, Words, ::testing::Bool(),
                         [](const auto& which) { return which.param ? "watched" : "plain"; });

TEST_P(Words, Shuffles) {
  for (int l = 0; l < 32; ++l) y()[l] = static_cast<float>(100 + l);
  run("shuffles");
  float low = 0;
  for (int l = 0; l < 16; ++l) low += static_cast<float>(100 + l);
  for (int l = 0; l < 32; ++l) {
    SCOPED_TRACE(l);
    const auto of = [](int lane) { return static_cast<float>(100 + lane); };
    EXPECT_EQ(x()[l], of(5));
    EXPECT_EQ(x()[32 + l], of(l / 8 * 8 + (l + 3) % 8));
    EXPECT_EQ(x()[64 + l], of(l >= 3 ? l - 3 : l));
    EXPECT_EQ(x()[96 + l], of(l % 16 + 5 < 16 ? l + 5 : l));
    EXPECT_EQ(x()[128 + l], of(l ^ 9));
    EXPECT_EQ(x()[160 + l], l < 16 ? low : of(l));
    EXPECT_EQ(x()[192 + l], of(l ^ 1) + 0.25f);
  }
}

TEST_P(Words, Votes) {
  run("votes");
  EXPECT_EQ(static_cast<unsigned>(i()[0]), 0xAAAAAAAAu);
  EXPECT_EQ(i()[1], 8 + 2);
  EXPECT_EQ(static_cast<unsigned>(i()[2]), 1u << 20 | 1u << 24 | 1u << 28);
  run("block_votes");
  EXPECT_EQ(i()[0], 22);
  EXPECT_EQ(i()[1], 1);
  EXPECT_EQ(i()[2], 0);
}

TEST_P(Words, Atomics) {
  std::fill_n(i(), 64, 0);
  i()[4] = -1;
  run("atomics");
  EXPECT_EQ(i()[0], 119 * 120 / 2);
  EXPECT_EQ(i()[1], 119);
  EXPECT_EQ(i()[2], -119);
  EXPECT_EQ(i()[3], 0x7FFFFFFF);
  EXPECT_EQ(static_cast<unsigned>(i()[4]), 0x80000000u);
  EXPECT_EQ(i()[5], 0);
  EXPECT_EQ(i()[6], 9);
  EXPECT_EQ(i()[7], 0);
  EXPECT_EQ(i()[8], 4);
}

TEST_P(Words, SharedMemoryAndBarriers) {
  run("reversed");
  for (int t = 0; t < 256; ++t) EXPECT_EQ(y()[t], static_cast<float>(255 - t)) << t;
  run("some_return_early");
  for (int t = 0; t < 37; ++t) EXPECT_EQ(y()[t], 1) << t;
  i()[0] = 0;
  run("last_block_sums");
  EXPECT_EQ(y()[0], 45);
  y()[0] = 7;
  run("no blocks");
  EXPECT_EQ(y()[0], 7);
}

TEST_P(Words, AsynchronousCopies) {
  run("copies");
  for (int t = 0; t < 32; ++t) {
    float sum = 0;
    for (int row = 0; row < 2; ++row)
      for (int k = 0; k < 4; ++k) {
        const int at = row * 128 + (t + 1) % 32 * 4 + k;
        sum += at < 253 ? static_cast<float>(at) : 0;
      }
    EXPECT_EQ(y()[t], sum) << t;
    EXPECT_EQ(y()[32 + t], t % 2 == 0 ? static_cast<float>(t * 4 + 1) : 0) << t;
  }
}

TEST_P(Words, MatrixProduct) {
  run("matrix_product");
  const float start[4] = {1, 2, 3, 4};
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 8; ++column) {
      float sum = start[row / 8 * 2 + column % 2];
      for (int k = 0; k < 16; ++k)
        sum += static_cast<float>(row * 16 + k - 100) * static_cast<float>((k * 8 + column) % 11 - 5);
      EXPECT_EQ(y()[row * 8 + column], sum) << row << ", " << column;
    }
}

TEST_P(Words, FragmentsLieAsPtxSays) {
  for (bool transposed : {false, true}) {
    run(transposed ? "fragments transposed" : "fragments");
    for (int l = 0; l < 32; ++l)
      for (int matrix : {3, 0}) {
        const int g = l / 4, t = 2 * (l % 4);
        const auto element = [&](int row, int column) { return (matrix * 8 + row) * 8 + column; };
        const int low = transposed ? element(t, g) : element(g, t);
        const int high = transposed ? element(t + 1, g) : element(g, t + 1);
        EXPECT_EQ(i()[2 * l + (matrix == 0)], low | high << 16)
            << transposed << " lane " << l << " matrix " << matrix;
      }
  }
}

TEST_P(Words, Vectors) {
  run("vectors");
  for (int k = 0; k < 128; ++k) EXPECT_EQ(y()[k], x()[k / 4 * 4 + 3 - k % 4]) << k;
  for (int k = 0; k < 64; ++k) EXPECT_EQ(y()[128 + k], x()[128 + (k ^ 1)]) << k;
  const auto* from = reinterpret_cast<const bf16*>(x());
  const auto* to = reinterpret_cast<const bf16*>(y() + 192);
  for (int k = 0; k < 64; ++k) EXPECT_EQ(float(to[k]), k % 8 == 0 ? 3 : float(from[24 * 8 + k])) << k;
}

TEST_P(Words, PairsOfBf16) {
  for (int k = 0; k < 128; ++k)
    x()[k] = std::bit_cast<float>(kBitsToRound[static_cast<size_t>(k) % kBitsToRound.size()]);
  run("packing");
  for (int k = 0; k < 64; ++k)
    EXPECT_EQ(static_cast<uint32_t>(i()[k]),
              uint32_t{bf16(x()[2 * k]).bits} | uint32_t{bf16(x()[2 * k + 1]).bits} << 16)
        << k;
}

// Rounding to nearest even, against every float whose lower half is near a tie.
TEST(Bf16, RoundsToNearestEven) {
  for (uint32_t upper : {0x0000u, 0x0001u, 0x3F80u, 0x3F81u, 0x7F7Fu, 0x8000u, 0xBF81u})
    for (uint32_t lower : {0u, 1u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
      const auto f = std::bit_cast<float>(upper << 16 | lower);
      const bool up = lower > 0x8000 || (lower == 0x8000 && upper % 2 == 1);
      EXPECT_EQ(bf16(f).bits, upper + up) << std::hex << upper << " " << lower;
    }
  EXPECT_EQ(bf16(std::bit_cast<float>(0xFFC12345u)).bits, 0x7FFF);
  EXPECT_EQ(bf16(HUGE_VALF).bits, 0x7F80);
}

// A barrier costs a thread no more than 250 ns of processor time, else whole training steps on the executor
// are out of reach: it takes 20 to 40.
TEST(ExecutorTiming, BarriersAndShufflesAreCheap) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer's own times would be measured";
#endif
  WatchedMemory m;
  const TestKernels kernels = simt::word_kernels();
  const auto seconds = [&](const char* name) {
    kernels.at(name)(m.memory);
    double best = 1e9;
    for (int k = 0; k < 5; ++k) {
      const std::clock_t start = std::clock();
      kernels.at(name)(m.memory);
      best = std::min(best, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
    }
    return best;
  };
  const double barrier = seconds("many_barriers") / (256 * 2000.0),
               shuffle = seconds("many_shuffles") / (256 * 2000.0);
  const double thread = seconds("many_threads") / (256 * 10000.0);
  RecordProperty("nanoseconds", fmt::format("barrier {:.1f} shuffle {:.1f} thread {:.1f}", barrier * 1e9,
                                            shuffle * 1e9, thread * 1e9));
  fmt::print("barrier {:.1f} ns, shuffle {:.1f} ns, a thread that does nothing {:.1f} ns\n", barrier * 1e9,
             shuffle * 1e9, thread * 1e9);
  EXPECT_LT(barrier, 250e-9);
  EXPECT_LT(shuffle, 250e-9);
  EXPECT_LT(thread, 250e-9);
}

}  // namespace
}  // namespace lockstep::words_test
