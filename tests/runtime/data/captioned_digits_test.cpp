// SPDX-License-Identifier: Apache-2.0
// The data set of scenes, made of the real MNIST in configs/data/mnist.
#include "runtime/data/captioned_digits.h"

#include <gtest/gtest.h>

#include "runtime/data/digit_caption.h"
#include "tests/support/files.h"
#include "tests/support/own_cache.h"

namespace lockstep {
namespace {

class CaptionedDigitsSet : public ::testing::Test {
 protected:
  static DatasetConfig config(const char* split, uint64_t seed = 0) {
    DatasetConfig c;
    c.dataset = "captioned_digits";
    c.path = LOCKSTEP_SOURCE_DIR "/configs/data/mnist";
    c.split = split;
    c.seed = seed;
    return c;
  }
  static std::vector<uint8_t> pixels(const SampleSource& set, int64_t epoch, int64_t i) {
    std::vector<uint8_t> out(size_t(set.sample_bytes()));
    set.copy_pixels(epoch, i, out.data());
    return out;
  }
  testing::OwnCache cache;
};

TEST_F(CaptionedDigitsSet, HasAPictureForEachDigitOfMnist) {
  for (const char* split : {"training", "test"}) {
    const auto set = open_dataset(config(split));
    DatasetConfig mnist = config(split);
    mnist.dataset = "mnist";
    const auto digits = load_dataset(mnist);
    ASSERT_EQ(set->count(), digits->count());
    EXPECT_TRUE(set->captioned());
    const DatasetShape shape = set->shape(), probed = probe_dataset(config(split));
    for (const DatasetShape& s : {shape, probed}) {
      EXPECT_EQ(s.channels, 3);
      EXPECT_EQ(s.height, 32);
      EXPECT_EQ(s.width, 32);
      EXPECT_EQ(s.classes, 10);
      EXPECT_EQ(s.class_names, digits->class_names);
      EXPECT_EQ(s.class_counts, digits->shape().class_counts);
    }
    for (int64_t i = 0; i < set->count(); ++i) ASSERT_EQ(set->label(i), digits->label(i));
    EXPECT_TRUE(inspect_dataset(config(split)).remarks.empty());
  }
}

TEST_F(CaptionedDigitsSet, TrainingDrawsAnewInEachEpochAndNeverWhatIsHeldOut) {
  const auto set = std::dynamic_pointer_cast<const CaptionedDigits>(open_dataset(config("training", 5)));
  const auto test = std::dynamic_pointer_cast<const CaptionedDigits>(open_dataset(config("test", 5)));
  ASSERT_TRUE(set && test);
  int same = 0, held_out = 0;
  for (int64_t i = 0; i < 1000; ++i) {
    for (int64_t epoch = 0; epoch < kPlainEpochs + 2; ++epoch) {
      const DigitScene scene = set->scene(epoch, i);
      ASSERT_FALSE(is_held_out(scene));
      ASSERT_EQ(scene.digit, set->label(i));
      ASSERT_EQ(
          set->captions_of(epoch, i),
          std::vector{epoch < kPlainEpochs ? prompt_of_scene(scene) : caption_of_scene(scene, 5, epoch, i)});
    }
    same += set->scene(0, i) == set->scene(1, i);
    held_out += is_held_out(test->scene(0, i));
  }
  EXPECT_LT(same, 20);  // of about 500 scenes
  EXPECT_GT(held_out, 100);
  EXPECT_EQ(pixels(*set, 1, 3), pixels(*set, 1, 3));
  EXPECT_NE(pixels(*set, 1, 3), pixels(*set, 2, 3));
}

TEST_F(CaptionedDigitsSet, IsASetOfItsSeed) {
  const auto first = open_dataset(config("training", 1)), second = open_dataset(config("training", 2)),
             again = open_dataset(config("training", 1));
  EXPECT_EQ(first->content_hash, again->content_hash);
  EXPECT_NE(first->content_hash, second->content_hash);
  EXPECT_EQ(pixels(*first, 0, 7), pixels(*again, 0, 7));
  EXPECT_NE(pixels(*first, 0, 7), pixels(*second, 0, 7));
  // What is tested on does not depend on it.
  const auto test = open_dataset(config("test", 1)), other = open_dataset(config("test", 2));
  EXPECT_EQ(test->content_hash, other->content_hash);
  EXPECT_EQ(pixels(*test, 0, 7), pixels(*other, 0, 7));
  EXPECT_NE(test->content_hash, first->content_hash);
  DatasetConfig limited = config("training", 1);
  limited.limit = 100;
  const auto few = open_dataset(limited);
  EXPECT_EQ(few->count(), 100);
  EXPECT_EQ(probe_dataset(limited).count, 100);
  EXPECT_NE(few->content_hash, first->content_hash);
  EXPECT_EQ(pixels(*few, 0, 7), pixels(*first, 0, 7));
}

TEST_F(CaptionedDigitsSet, InMemoryIsItsFirstEpoch) {
  DatasetConfig c = config("training", 3);
  c.limit = 200;
  const auto set = open_dataset(c);
  const auto memory = load_dataset(c);
  ASSERT_EQ(memory->count(), 200);
  EXPECT_EQ(memory->content_hash, set->content_hash);
  for (int64_t i = 0; i < 200; ++i) {
    ASSERT_EQ(pixels(*memory, 0, i), pixels(*set, 0, i));
    ASSERT_EQ(pixels(*memory, 9, i), pixels(*set, 0, i));
    ASSERT_EQ(memory->label(i), set->label(i));
    ASSERT_EQ(memory->captions_of(9, i), set->captions_of(0, i));
  }
  // A model of grey images is shown grey ones.
  DatasetShape grey = set->shape();
  grey.channels = 1;
  const auto converted = open_dataset(c, 1, &grey);
  EXPECT_EQ(converted->sample_bytes(), 1024);
  EXPECT_EQ(converted->content_hash, set->content_hash);
}

TEST_F(CaptionedDigitsSet, TakesNoOtherCaptions) {
  DatasetConfig c = config("test");
  c.captions.pattern = "a {}";
  testing::expect_error(
      Exit::config, [&] { open_dataset(c); }, "captions of their own");
}

TEST_F(CaptionedDigitsSet, NeedsMnist) {
  testing::TestFolder folder;
  DatasetConfig c = config("training");
  c.path = folder.path();
  for (const auto& look : {std::function<void()>([&] { open_dataset(c); }), {[&] { probe_dataset(c); }}})
    testing::expect_error(Exit::no_input, look, "train-images", "lockstep data get mnist");
  // Two images of 4x4.
  testing::write_file(folder.file("train-images-idx3-ubyte"),
                      std::string("\0\0\x08\x03\0\0\0\x02\0\0\0\x04\0\0\0\x04", 16) + std::string(32, 'x'));
  testing::write_file(folder.file("train-labels-idx1-ubyte"),
                      std::string("\0\0\x08\x01\0\0\0\x02\x01\x02", 10));
  for (const auto& look : {std::function<void()>([&] { open_dataset(c); }), {[&] { probe_dataset(c); }}})
    testing::expect_error(Exit::data, look, "28x28", "4x4", folder.path());
}

}  // namespace
}  // namespace lockstep
