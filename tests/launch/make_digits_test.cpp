// SPDX-License-Identifier: Apache-2.0
// `lockstep data make captioned_digits`: what it writes is what a job sees.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/data/captioned_digits.h"
#include "tests/launch/small_run.h"
#include "tests/support/own_cache.h"

namespace lockstep {
namespace {

using testing::read_file;

class MakeDigits : public testing::SmallRun {
 protected:
  testing::Outcome make(const std::string& more) const {
    return lockstep("data make captioned_digits " + more);
  }
  static DatasetConfig config(const std::string& dataset, const std::string& path, const std::string& split) {
    DatasetConfig c;
    c.dataset = dataset, c.path = path, c.split = split;
    return c;
  }
  const std::string mnist_ = LOCKSTEP_SOURCE_DIR "/configs/data/mnist";
  const std::string from_ = " --from " + mnist_;
  testing::OwnCache cache_;
};

TEST_F(MakeDigits, WritesWhatAJobSees) {
  for (const std::string split : {"training", "test"}) {
    const std::string dir = folder_.file("made/" + split);
    const testing::Outcome made =
        make(dir + " --count 120 --split " + split + (split == "training" ? " --seed 7" : "") + from_);
    ASSERT_EQ(made.code, 0) << made.text;
    DatasetConfig c = config("captioned_digits", mnist_, split);
    c.seed = 7;
    const auto set = std::dynamic_pointer_cast<const CaptionedDigits>(open_dataset(c));
    std::istringstream rows(read_file(dir + "/metadata.jsonl"));
    const int64_t epoch = split == "test" ? 0 : kPlainEpochs;
    int64_t i = 0;
    for (std::string line; std::getline(rows, line); ++i) {
      const auto row = nlohmann::json::parse(line);
      const DigitScene scene = set->scene(epoch, i);
      EXPECT_EQ(row["text"], set->captions_of(epoch, i)[0]);
      EXPECT_EQ(row["digit"], scene.digit);
      EXPECT_EQ(row["ink"], kColourNames[size_t(scene.ink)]);
      EXPECT_EQ(row["paper"], kColourNames[size_t(scene.paper)]);
      EXPECT_EQ(row["place"], name_of(scene.place));
      EXPECT_EQ(row["size"], name_of(scene.size));
      EXPECT_EQ(row["held_out"], is_held_out(scene));
      std::vector<uint8_t> pixels(size_t{kSceneBytes});
      set->copy_pixels(epoch, i, pixels.data());
      EXPECT_EQ(read_image(dir + "/" + row["file_name"].get<std::string>(), 3).pixels, pixels);
    }
    EXPECT_EQ(i, 120);
    const std::string readme = read_file(dir + "/README.md");
    for (const char* words : {"Yann LeCun", "Corinna Cortes", "Burges", "licenses/by-sa/3.0", "adaptation"})
      EXPECT_NE(readme.find(words), std::string::npos) << words;
    // As a folder of pictures, a class a digit.
    const auto pictures = load_dataset(config("image_folder", dir, "training"));
    EXPECT_EQ(pictures->count(), 120);
    EXPECT_EQ(pictures->class_names, set->class_names);
    EXPECT_EQ(pictures->sample_bytes(), kSceneBytes);
    for (const auto& entry : std::filesystem::directory_iterator(folder_.file("made")))
      EXPECT_EQ(entry.path().filename().string()[0], 't') << entry.path();  // nothing else is left
  }
}

TEST_F(MakeDigits, GoesOnWithTheNextEpoch) {
  // Six digits: bars of different lengths.
  std::string images = testing::big_endian(0x803),
              labels = testing::big_endian(0x801) + testing::big_endian(6);
  for (uint32_t n : {6, 28, 28}) images += testing::big_endian(n);
  for (int i = 0; i < 6; ++i) {
    std::string image(28 * 28, '\0');
    for (int y = 4; y < 24 - 2 * i; ++y)
      image.replace(static_cast<size_t>(28) * static_cast<size_t>(y) + 14, 2, "\xff\xff");
    images += image, labels += char(i);
  }
  const std::string few = folder_.file("few"), dir = folder_.file("more");
  std::filesystem::create_directory(few);
  testing::write_file(few + "/t10k-images-idx3-ubyte", images);
  testing::write_file(few + "/t10k-labels-idx1-ubyte", labels);
  const testing::Outcome made = make(dir + " --count 8 --split test --from " + few);
  ASSERT_EQ(made.code, 0) << made.text;
  const auto set = open_dataset(config("captioned_digits", few, "test"));
  std::vector<uint8_t> pixels(size_t{kSceneBytes});
  set->copy_pixels(1, 1, pixels.data());
  EXPECT_EQ(read_image(dir + "/1/000007.png", 3).pixels, pixels);
}

TEST_F(MakeDigits, RefusesWhatItCannotDo) {
  const std::string dir = folder_.file("set");
  std::filesystem::create_directory(dir);
  const auto expect = [&](const std::string& more, int code, const std::string& words) {
    const testing::Outcome o = make(more);
    EXPECT_EQ(o.code, code) << more << ": " << o.text;
    EXPECT_NE(o.text.find(words), std::string::npos) << more << ": " << o.text;
  };
  expect(dir + " --count 5" + from_, 73, dir);
  EXPECT_TRUE(std::filesystem::is_empty(dir));
  const std::string other = folder_.file("other");
  expect(other + " --count 5 --from " + folder_.file("nowhere"), 66, "lockstep data get mnist");
  expect(other + from_, 64, "--count");
  expect(from_ + " --count 5", 64, "folder");
  expect(other + " --count 0" + from_, 64, "--count");
  expect(other + " --count 5 --split validation" + from_, 64, "validation");
  expect(other + " --count 5 --split test --seed 3" + from_, 64, "--seed");
  expect(other + " --count 5 --to x" + from_, 64, "--to");
  EXPECT_FALSE(std::filesystem::exists(other));
  EXPECT_EQ(lockstep("data make mnist x --count 5").code, 64);
  EXPECT_EQ(lockstep("data get mnist x").code, 64);
  EXPECT_EQ(lockstep("data get mnist --count 5").code, 64);
}

}  // namespace
}  // namespace lockstep
