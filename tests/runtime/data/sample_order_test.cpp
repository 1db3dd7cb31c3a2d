// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/sample_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>

#include "kernels/core/error.h"

namespace lockstep {
namespace {

std::vector<int64_t> epoch_of(const SampleOrder& order, int64_t epoch) {
  std::vector<int64_t> samples;
  for (int64_t i = 0; i < order.count(); ++i) samples.push_back(order.sample(epoch, i));
  return samples;
}

class Counts : public ::testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(SampleOrder, Counts,
                         ::testing::Values(1, 2, 3, 5, 100, 255, 256, 257, 60000, 65536, 65537));

TEST_P(Counts, EveryEpochIsAPermutation) {
  for (uint64_t seed : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}})
    for (int64_t epoch : {int64_t{0}, int64_t{1}, int64_t{1} << 31}) {
      auto samples = epoch_of(SampleOrder(GetParam(), seed, true), epoch);
      std::sort(samples.begin(), samples.end());
      for (int64_t i = 0; i < GetParam(); ++i) ASSERT_EQ(samples[static_cast<size_t>(i)], i);
    }
}

TEST(SampleOrder, WithoutShuffleIsTheOrderOfTheSet) {
  const SampleOrder order(1000, 3, false);
  for (int64_t i = 0; i < 1000; ++i) EXPECT_EQ(order.sample(5, i), i);
}

TEST(SampleOrder, EpochsAndSeedsDiffer) {
  const auto a = epoch_of(SampleOrder(1000, 1, true), 0);
  // Two random permutations agree in one place on average (Poisson): more than ten has odds of 1e-8.
  const auto agreements = [&a](const std::vector<int64_t>& b) {
    int n = 0;
    for (size_t i = 0; i < a.size(); ++i) n += a[i] == b[i];
    return n;
  };
  EXPECT_LE(agreements(epoch_of(SampleOrder(1000, 1, true), 1)), 10);
  EXPECT_LE(agreements(epoch_of(SampleOrder(1000, 2, true), 0)), 10);
  EXPECT_LE(agreements(epoch_of(SampleOrder(1000, uint64_t{1} << 32 | 1, true), 0)), 10);
  std::vector<int64_t> order(1000);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  EXPECT_LE(agreements(order), 10);
}

// Never to change silently: a resumed run would see other samples. An independent implementation in Python
// gave the same numbers.
TEST(SampleOrder, PinnedValues) {
  const auto first = [](int64_t count, uint64_t seed, int64_t epoch) {
    std::vector<int64_t> v;
    for (int64_t i = 0; i < 6; ++i) v.push_back(SampleOrder(count, seed, true).sample(epoch, i));
    return v;
  };
  EXPECT_EQ(first(60000, 1, 0), (std::vector<int64_t>{5730, 32283, 23034, 9743, 19710, 12065}));
  EXPECT_EQ(first(60000, 1, 1), (std::vector<int64_t>{45620, 16545, 27015, 52652, 15716, 56013}));
  EXPECT_EQ(first(7, 42, 3), (std::vector<int64_t>{2, 5, 1, 3, 0, 6}));
  EXPECT_EQ(first(int64_t{1} << 40, 0xDEADBEEFCAFEF00D, 9),
            (std::vector<int64_t>{783285804909, 810460323215, 80502643214, 478632024037, 896757995525,
                                  229591626812}));
  EXPECT_EQ(validation_indices(50, 0.1, 1), (std::vector<int64_t>{23, 24, 26, 38, 45}));
}

// Thresholds: the chi-square quantile of 1 - 1e-6, by Wilson and Hilferty (inputs are fixed, so the tests are
// deterministic; a permutation without bias fails once in a million choices of seed).
double chi_square(const std::vector<int64_t>& observed, double expected) {
  double sum = 0;
  for (int64_t o : observed)
    sum += (static_cast<double>(o) - expected) * (static_cast<double>(o) - expected) / expected;
  return sum;
}

TEST(SampleOrder, SmallSetsReachAllPermutationsEquallyOften) {
  const SampleOrder order(4, 11, true);
  std::map<std::vector<int64_t>, int64_t> seen;
  for (int64_t epoch = 0; epoch < 24000; ++epoch) ++seen[epoch_of(order, epoch)];
  ASSERT_EQ(seen.size(), 24u);
  std::vector<int64_t> counts;
  for (const auto& [permutation, n] : seen) counts.push_back(n);
  EXPECT_LT(chi_square(counts, 1000), 71.2);  // 23 degrees of freedom
}

TEST(SampleOrder, ASampleStandsAtEveryPositionEquallyOften) {
  const SampleOrder order(60000, 5, true);
  for (int64_t position : {0, 1, 59999}) {
    std::vector<int64_t> bins(100);
    for (int64_t epoch = 0; epoch < 20000; ++epoch)
      ++bins[static_cast<size_t>(order.sample(epoch, position) / 600)];
    EXPECT_LT(chi_square(bins, 200), 181.1) << position;  // 99 degrees of freedom
  }
}

TEST(SampleOrder, NeighboursAreIndependent) {
  // Where position p + 1 points, against where p does, 10 x 10 cells.
  const SampleOrder order(60000, 5, true);
  std::vector<int64_t> cells(100);
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    const auto samples = epoch_of(order, epoch);
    for (size_t i = 0; i + 1 < samples.size(); i += 2)
      ++cells[static_cast<size_t>(samples[i] / 6000 * 10 + samples[i + 1] / 6000)];
  }
  EXPECT_LT(chi_square(cells, 600), 181.1);
}

TEST(SampleOrder, OutOfRangeIsAnError) {
  EXPECT_THROW(SampleOrder(10, 1, true).sample(0, 10), Error);
  EXPECT_THROW(SampleOrder(10, 1, true).sample(0, -1), Error);
  EXPECT_THROW(SampleOrder(10, 1, false).sample(0, 10), Error);
}

TEST(SliceOf, LargerOnesFirst) {
  EXPECT_EQ(slice_of(128, 3, 0).size(), 43);
  EXPECT_EQ(slice_of(128, 3, 1).size(), 43);
  EXPECT_EQ(slice_of(128, 3, 2).size(), 42);
  for (int64_t n : {0, 1, 2, 7, 128})
    for (int64_t parts : {1, 2, 3, 4, 9}) {
      int64_t at = 0;
      for (int64_t i = 0; i < parts; ++i) {
        const Slice s = slice_of(n, parts, i);
        EXPECT_EQ(s.begin, at);
        EXPECT_TRUE(s.size() == n / parts || s.size() == n / parts + 1);
        EXPECT_LE(s.size(), slice_of(n, parts, std::max<int64_t>(0, i - 1)).size());
        at = s.end;
      }
      EXPECT_EQ(at, n);
    }
}

TEST(Split, DisjointCompleteAndOfTheSizeAskedFor) {
  for (int64_t count : {2, 3, 10, 60000})
    for (double fraction : {0.0, 0.001, 0.1, 0.5, 0.999}) {
      const auto validation = validation_indices(count, fraction, 9),
                 training = training_indices(count, fraction, 9);
      EXPECT_TRUE(std::is_sorted(validation.begin(), validation.end()));
      EXPECT_TRUE(std::is_sorted(training.begin(), training.end()));
      std::vector<int64_t> all;
      std::merge(validation.begin(), validation.end(), training.begin(), training.end(),
                 std::back_inserter(all));
      ASSERT_EQ(all.size(), static_cast<size_t>(count));
      for (int64_t i = 0; i < count; ++i) ASSERT_EQ(all[static_cast<size_t>(i)], i);
      EXPECT_EQ(validation.empty(), fraction == 0);
      EXPECT_FALSE(training.empty());
    }
  EXPECT_EQ(validation_indices(60000, 0.1, 9).size(), 6000u);
  EXPECT_NE(validation_indices(60000, 0.1, 9), validation_indices(60000, 0.1, 10));
  EXPECT_THROW(validation_indices(1, 0.1, 9), Error);
}

}  // namespace
}  // namespace lockstep
