// SPDX-License-Identifier: Apache-2.0
// In which order a step's micro-batches are summed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "runtime/training/schedule.h"
#include "runtime/training/step_graph.h"

namespace lockstep {
namespace {

// What the gradients' own array holds in the end, with numbers in place of gradients. An array is read once,
// as its owner then overwrites it.
float summed(const TrainingConfig& config, int ranks, const std::vector<float>& gradients) {
  std::map<int, float> arrays;
  for (size_t m = 0; m < gradients.size(); ++m) {
    const auto how = micro_batch_options(config, ranks, static_cast<int64_t>(m));
    EXPECT_EQ(how.finish, m + 1 == gradients.size());
    float sum = gradients[m];
    for (int i = 0; i < 64; ++i)
      if (how.add >> i & 1) {
        EXPECT_TRUE(arrays.contains(i))
            << "micro-batch " << m << " adds array " << i << ", which holds nothing";
        sum += arrays[i];
        arrays.erase(i);
      }
    EXPECT_FALSE(arrays.contains(how.store)) << "micro-batch " << m << " overwrites array " << how.store;
    arrays[how.store] = sum;
  }
  EXPECT_EQ(arrays.size(), 1u) << "sums were left out";
  return arrays[0];
}

float tree(const std::vector<float>& x, size_t first, size_t count) {
  return count == 1 ? x[first] : tree(x, first, count / 2) + tree(x, first + count / 2, count / 2);
}

TEST(MicroBatches, ShardsAreSummedInOneTreeWhateverTheRanks) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 1000);
  for (int shards : {1, 2, 4, 8, 64}) {
    std::vector<float> x(static_cast<size_t>(shards));
    for (float& v : x) v = normal(random);
    TrainingConfig config;
    config.shards = shards;
    for (int ranks = 1; ranks <= shards; ranks *= 2) {
      const auto a = micro_batches(config, ranks);
      ASSERT_EQ(a * ranks, shards);
      std::vector<float> of_ranks;
      for (int r = 0; r < ranks; ++r)
        of_ranks.push_back(summed(config, ranks, {x.begin() + r * a, x.begin() + (r + 1) * a}));
      EXPECT_EQ(tree(of_ranks, 0, of_ranks.size()), tree(x, 0, x.size()))
          << shards << " shards, " << ranks << " ranks";
      int most = 0;
      for (int64_t m = 0; m < a; ++m) most = std::max(most, micro_batch_options(config, ranks, m).store);
      EXPECT_EQ(most, a > 1 ? static_cast<int>(std::log2(a)) - 1 : 0);  // arrays beside the gradients' own
    }
  }
}

TEST(MicroBatches, AccumulatedOnesNeedNoOtherArray) {
  TrainingConfig config;
  config.gradient_accumulation = 5;
  EXPECT_EQ(summed(config, 3, {1, 2, 4, 8, 16}), 31);
  for (int64_t m = 0; m < 5; ++m) EXPECT_EQ(micro_batch_options(config, 3, m).store, 0);
}

// Held against the parts themselves, for every size of a last batch.
TEST(MicroBatches, ThoseWithSamplesAndTheSmallestOfThem) {
  for (int64_t accumulation : {1, 3, 4})
    for (int ranks : {1, 2, 3})
      for (int64_t last = 1; last <= 24; ++last) {
        TrainingConfig config;
        config.epochs = 1, config.global_batch_size = 24, config.gradient_accumulation = accumulation;
        const Schedule schedule(config, 24 + last, ranks);
        int64_t with_samples = 0, smallest = 24;
        for (int64_t m = 0; m < accumulation; ++m) {
          int64_t samples = 0;
          for (int rank = 0; rank < ranks; ++rank) samples += schedule.part(1, m, rank).size();
          if (samples > 0) ++with_samples, smallest = std::min(smallest, samples);
        }
        EXPECT_EQ(schedule.micro_batches_with_samples(1), with_samples);
        EXPECT_EQ(schedule.smallest_micro_batch(1), smallest)
            << last << " samples, " << ranks << " ranks, " << accumulation << " parts";
      }
}

}  // namespace
}  // namespace lockstep
