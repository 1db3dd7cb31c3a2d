// SPDX-License-Identifier: Apache-2.0
// The real MNIST in configs/data/mnist.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "runtime/data/dataset.h"
#include "tests/support/own_cache.h"

namespace lockstep {
namespace {

DatasetConfig mnist(const char* split) {
  DatasetConfig c;
  c.dataset = "mnist";
  c.path = LOCKSTEP_SOURCE_DIR "/configs/data/mnist";
  c.split = split;
  return c;
}

class Mnist : public ::testing::Test {
 protected:
  testing::OwnCache cache;
};

TEST_F(Mnist, TrainingHalf) {
  const auto set = load_dataset(mnist("training"));
  EXPECT_EQ(set->count(), 60000);
  EXPECT_EQ(set->sample_bytes(), 784);
  EXPECT_EQ(set->classes, 10);
  EXPECT_EQ(set->pixels.size(), 60000u * 784);
  // The published mean, to its four digits.
  const auto sum = std::accumulate(set->pixels.begin(), set->pixels.end(), int64_t{0});
  EXPECT_NEAR(static_cast<double>(sum) / 255 / 60000 / 784, 0.1307, 5e-5);
  // The first labels, as everybody's first look at MNIST shows them.
  EXPECT_EQ(std::vector<int32_t>(set->labels.begin(), set->labels.begin() + 8),
            (std::vector<int32_t>{5, 0, 4, 1, 9, 2, 1, 3}));
}

TEST_F(Mnist, TestHalfAndProbe) {
  const auto set = load_dataset(mnist("test"));
  EXPECT_EQ(set->count(), 10000);
  EXPECT_EQ(set->labels[0], 7);
  const DatasetShape shape = probe_dataset(mnist("test"));
  EXPECT_EQ(shape.count, 10000);
  EXPECT_EQ(shape.channels, 1);
  EXPECT_EQ(shape.height, 28);
  EXPECT_EQ(shape.width, 28);
  EXPECT_EQ(shape.classes, 10);
}

TEST_F(Mnist, LimitTakesTheFirstSamples) {
  DatasetConfig c = mnist("training");
  c.limit = 5;
  const auto set = load_dataset(c);
  EXPECT_EQ(set->labels, (std::vector<int32_t>{5, 0, 4, 1, 9}));
  EXPECT_EQ(set->pixels.size(), 5u * 784);
  EXPECT_EQ(probe_dataset(c).count, 5);
  EXPECT_NE(set->content_hash, load_dataset(mnist("test"))->content_hash);
}

TEST_F(Mnist, TheSameFromTheCache) {
  const auto read = load_dataset(mnist("test"));
  const auto files = [&] { return std::distance(std::filesystem::directory_iterator(cache.path()), {}); };
  EXPECT_EQ(files(), 1);
  const auto mapped = load_dataset(mnist("test"));
  EXPECT_EQ(files(), 1);
  EXPECT_EQ(mapped->content_hash, read->content_hash);
  EXPECT_EQ(mapped->labels, read->labels);
  EXPECT_EQ(mapped->class_names, read->class_names);
  EXPECT_TRUE(
      std::equal(mapped->pixels.begin(), mapped->pixels.end(), read->pixels.begin(), read->pixels.end()));
  DatasetConfig limited = mnist("test");
  limited.limit = 100;
  EXPECT_EQ(load_dataset(limited)->pixels.size(), 78400u);
}

}  // namespace
}  // namespace lockstep
