// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/loader.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "runtime/data/dataset.h"

namespace lockstep {
namespace {

// count samples of three bytes (i, i + 1, i + 2) with label i.
std::shared_ptr<const ImageSet> numbered(int64_t count) {
  auto set = std::make_shared<ImageSet>();
  set->channels = 1, set->height = 1, set->width = 3, set->classes = count;
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j < 3; ++j) set->pixels.push_back(static_cast<uint8_t>(i + j));
    set->labels.push_back(static_cast<int32_t>(i));
  }
  return set;
}

void expect_batch(const Batch& batch, const SampleOrder& order, int64_t epoch, int64_t begin, int64_t count,
                  const std::vector<int64_t>& subset = {}) {
  ASSERT_EQ(batch.count, count);
  ASSERT_EQ(batch.labels.size(), static_cast<size_t>(count));
  ASSERT_EQ(batch.images.size(), static_cast<size_t>(3 * count));
  for (int64_t i = 0; i < count; ++i) {
    int64_t want = order.sample(epoch, begin + i);
    if (!subset.empty()) want = subset[static_cast<size_t>(want)];
    EXPECT_EQ(batch.labels[static_cast<size_t>(i)], want);
    for (int64_t j = 0; j < 3; ++j)
      EXPECT_EQ(batch.images[static_cast<size_t>(3 * i + j)], static_cast<uint8_t>(want + j));
  }
}

TEST(Loader, BatchesComeInRequestOrder) {
  for (int depth : {1, 2, 4}) {
    const SampleOrder order(100, 7, true);
    Loader loader(numbered(100), {}, order, 16, depth);
    int64_t asked = 0;
    const auto ask = [&] {
      loader.request(asked / 10, asked % 10 * 10, asked % 7 == 3 ? 0 : 10);
      ++asked;
    };
    for (int i = 0; i < depth; ++i) ask();
    for (int64_t taken = 0; taken < 200; ++taken) {
      const Batch& batch = loader.next();
      ask();  // while the batch is held: the buffer it lies in must not be filled again
      expect_batch(batch, order, taken / 10, taken % 10 * 10, taken % 7 == 3 ? 0 : 10);
    }
  }
}

TEST(Loader, SubsetIsWhatTheSamplerCounts) {
  const std::vector<int64_t> subset = {3, 5, 8, 13, 21, 34};
  const SampleOrder order(6, 1, true);
  Loader loader(numbered(40), subset, order, 6);
  loader.request(2, 0, 6);
  expect_batch(loader.next(), order, 2, 0, 6, subset);
}

// One byte a sample: 10 * epoch + i.
class Epochs : public SampleSource {
 public:
  Epochs() { channels = height = width = 1; }
  int64_t count() const override { return 10; }
  int32_t label(int64_t i) const override { return static_cast<int32_t>(i); }
  void copy_pixels(int64_t epoch, int64_t i, uint8_t* pixels) const override {
    *pixels = static_cast<uint8_t>(10 * epoch + i);
  }
  std::vector<std::string> captions_of(int64_t, int64_t) const override { return {}; }
  bool captioned() const override { return false; }
};

TEST(Loader, AsksForTheEpochsOwnSamplesAndTokens) {
  const std::vector<int64_t> subset = {1, 4, 7, 9};
  const SampleOrder order(4, 3, true);
  const CaptionTokens tokens{3, [](int64_t epoch, int64_t sample, std::span<int32_t> out) {
                               ASSERT_EQ(out.size(), 3u);
                               for (size_t t = 0; t < 3; ++t)
                                 out[t] = static_cast<int32_t>(1000 * epoch + 10 * sample) +
                                          static_cast<int32_t>(t);
                             }};
  Loader loader(std::make_shared<Epochs>(), subset, order, 4, 2, tokens);
  for (int64_t epoch = 0; epoch < 5; ++epoch) {
    loader.request(epoch, 1, 3);
    const Batch& batch = loader.next();
    ASSERT_EQ(batch.tokens.size(), 9u);
    for (int64_t i = 0; i < 3; ++i) {
      const int64_t sample = subset[static_cast<size_t>(order.sample(epoch, 1 + i))];
      EXPECT_EQ(batch.images[static_cast<size_t>(i)], 10 * epoch + sample);
      EXPECT_EQ(batch.labels[static_cast<size_t>(i)], sample);
      for (int64_t t = 0; t < 3; ++t)
        EXPECT_EQ(batch.tokens[static_cast<size_t>(3 * i + t)], 1000 * epoch + 10 * sample + t);
    }
  }
  Loader without(std::make_shared<Epochs>(), {}, SampleOrder(10, 3, true), 4);
  without.request(0, 0, 4);
  EXPECT_TRUE(without.next().tokens.empty());
}

TEST(Loader, AnErrorReachesNextAndTheFollowingBatchIsGood) {
  const SampleOrder order(10, 1, false);
  Loader loader(numbered(10), {}, order, 8);
  loader.request(0, 5, 8);  // past the end
  loader.request(0, 0, 8);
  EXPECT_THROW(loader.next(), Error);
  expect_batch(loader.next(), order, 0, 0, 8);
}

TEST(Loader, MisuseIsAnErrorNotAHang) {
  Loader loader(numbered(10), {}, SampleOrder(10, 1, false), 8);
  EXPECT_THROW(loader.next(), Error);
  EXPECT_THROW(loader.request(0, 0, 9), Error);
  EXPECT_THROW(Loader(numbered(10), {}, SampleOrder(9, 1, false), 8), Error);
  EXPECT_THROW(Loader(numbered(10), {10}, SampleOrder(1, 1, false), 8), Error);
}

TEST(Loader, LeavesWithRequestsInFlight) {
  const auto set = numbered(100);
  for (int i = 0; i < 200; ++i) {
    Loader loader(set, {}, SampleOrder(100, 1, true), 100);
    for (int j = 0; j < 4; ++j) loader.request(0, 0, 100);
    if (i % 2) loader.next();
  }
}

TEST(Loader, RequestBlocksUntilABatchIsTaken) {
  const SampleOrder order(100, 1, true);
  Loader loader(numbered(100), {}, order, 10, 2);
  std::atomic<int> requests = 0;
  std::thread requester([&] {
    for (int i = 0; i < 100; ++i) {
      loader.request(i, 0, 10);
      requests = i + 1;
    }
  });
  for (int taken = 0; taken < 100; ++taken) {
    while (requests <= taken) std::this_thread::yield();
    EXPECT_LE(requests, taken + 2);
    expect_batch(loader.next(), order, taken, 0, 10);
  }
  requester.join();
}

TEST(LoaderTiming, ReportsTheTimeThatNextWaited) {
  // A batch of 16M bytes takes the worker a measurable time; next() right after request() waits for it.
  auto set = std::make_shared<ImageSet>();
  set->channels = 1, set->height = 4096, set->width = 4096, set->classes = 1;
  set->pixels.resize(4096 * 4096);
  set->labels = {0};
  Loader loader(set, {}, SampleOrder(1, 1, false), 1);
  const auto asked = std::chrono::steady_clock::now();
  loader.request(0, 0, 1);
  loader.next();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - asked;
  const double waited = loader.take_wait_seconds();
  EXPECT_GT(waited, 0);
  EXPECT_LE(waited, took.count());
  EXPECT_EQ(loader.take_wait_seconds(), 0);
}

}  // namespace
}  // namespace lockstep
