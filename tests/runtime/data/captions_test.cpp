// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/captions.h"

#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <map>

#include "runtime/data/fit.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;
using CaptionLists = std::vector<std::vector<std::string>>;

// Pictures of 2 x 2 whose grey says which one it is.
class Captions : public ::testing::Test {
 protected:
  void picture(const std::string& name, uint8_t grey) const {
    fs::create_directories(fs::path(folder.file(name)).parent_path());
    write_png(folder.file(name), {1, 2, 2, std::vector<uint8_t>(4, grey)});
  }
  void text(const std::string& name, const std::string& content) const {
    fs::create_directories(fs::path(folder.file(name)).parent_path());
    testing::write_file(folder.file(name), content);
  }
  DatasetConfig config(const std::string& column = "text") const {
    DatasetConfig c;
    c.dataset = "image_folder", c.path = folder.path(), c.split = "training", c.captions.column = column;
    return c;
  }
  std::shared_ptr<const ImageSet> load(const std::string& column = "text") const {
    return load_dataset(config(column));
  }
  template <class... Words>
  void expect_bad(const std::string& metadata, const Words&... words) const {
    text("metadata.jsonl", metadata);
    testing::expect_error(
        Exit::data, [&] { load(); }, "E_CAPTIONS", folder.file("metadata.jsonl"), words...);
    testing::expect_error(
        Exit::data, [&] { probe_dataset(config()); }, "E_CAPTIONS");
  }

  testing::TestFolder folder;
};

TEST_F(Captions, ComeFromMetadataInItsOrder) {
  picture("a.png", 1);
  picture("deep/b.PNG", 2);
  picture("c.png", 3);
  text("metadata.jsonl",
       "{\"file_name\": \"c.png\", \"text\": \"see\", \"other\": [\"x\", \"y\"]}\n\n"
       "{\"text\": [\"be\", \"caf\u00e9\"], \"file_name\": \"./deep/b.PNG\", \"other\": \"z\"}\r\n");
  const auto set = load();
  ASSERT_EQ(set->count(), 2);
  EXPECT_EQ(set->captions, (CaptionLists{{"see"}, {"be", "café"}}));
  EXPECT_EQ(set->image(0)[0], 3);
  EXPECT_EQ(set->image(1)[0], 2);
  EXPECT_TRUE(set->class_names.empty());
  ASSERT_EQ(set->remarks.size(), 1U);
  EXPECT_NE(set->remarks[0].find("a.png: without caption"), std::string::npos);
  EXPECT_EQ(load("other")->captions, (CaptionLists{{"x", "y"}, {"z"}}));
  EXPECT_EQ(probe_dataset(config()).count, 2);

  DatasetConfig one = config();
  one.limit = 1;
  EXPECT_EQ(load_dataset(one)->captions, (CaptionLists{{"see"}}));
}

TEST_F(Captions, LieInTheFolderOfTheSplit) {
  for (const std::string half : {"train", "test"}) {
    picture(half + "/a.png", 1);
    text(half + "/metadata.jsonl", R"({"file_name": "a.png", "text": ")" + half + "\"}");
  }
  EXPECT_EQ(load()->captions, (CaptionLists{{"train"}}));
  DatasetConfig test = config();
  test.split = "test";
  EXPECT_EQ(load_dataset(test)->captions, (CaptionLists{{"test"}}));
  text("metadata.jsonl", R"({"file_name": "test/a.png", "text": "both"})");
  EXPECT_EQ(load()->captions, (CaptionLists{{"both"}}));
}

TEST_F(Captions, LieBesideThePictures) {
  picture("b.png", 1);
  picture("deep/a.b.png", 2);
  text("b.txt", "\n a bee \n");
  text("deep/a.b.txt", "two\nlines");
  text("notes.txt", "of no picture");
  const auto set = load();
  EXPECT_EQ(set->captions, (CaptionLists{{"a bee"}, {"two\nlines"}}));
  ASSERT_EQ(set->remarks.size(), 1U);
  EXPECT_NE(set->remarks[0].find("notes.txt: no picture"), std::string::npos);

  picture("c.png", 3);
  testing::expect_error(
      Exit::data, [&] { load(); }, "c.txt", "c.png", "missing");
  text("c.txt", " \n");
  testing::expect_error(
      Exit::data, [&] { load(); }, "c.txt", "empty");
  text("c.txt", "caf\xe9");
  testing::expect_error(
      Exit::data, [&] { load(); }, "c.txt", "not UTF-8 at byte 3");
}

TEST_F(Captions, SayWhichLineAndColumnIsWrong) {
  picture("a.png", 1);
  fs::create_directory(folder.file("deep"));
  const std::string good = "{\"file_name\": \"a.png\", \"text\": \"a\"}\n";
  expect_bad(good + "{\"file_name\": \"b.png\", \"text\": \"b\"}", "line=2", "column=file_name",
             "\"b.png\" is missing");
  expect_bad("{\"file_name\": \"deep\", \"text\": \"b\"}", "line=1", "column=file_name", "folder");
  expect_bad("{\"file_name\": \"../a.png\", \"text\": \"b\"}", "line=1", "column=file_name",
             "below the folder");
  expect_bad("{\"file_name\": \"" + folder.file("a.png") + "\", \"text\": \"b\"}", "column=file_name",
             "below");
  expect_bad("{\"file_name\": \"http://x/a.png\", \"text\": \"b\"}", "column=file_name", "below the folder");
  expect_bad("{\"file_name\": \"a.png\\u0000.txt\", \"text\": \"b\"}", "column=file_name",
             "below the folder");
  expect_bad("{\"file_name\": 3, \"text\": \"b\"}", "column=file_name", "found 3");
  expect_bad("{\"image\": \"a.png\", \"text\": \"b\"}", "column=file_name", "\"image\", \"text\"");
  expect_bad("{\"file_name\": \"a.png\", \"caption\": \"b\"}", "line=1", "column=text",
             "\"caption\", \"file_name\"");
  for (const char* caption : {"null", "3", "[3]", "{}", "\"\"", "\" \"", "[]", "[\"a\", \"\"]"})
    expect_bad(std::string("{\"file_name\": \"a.png\", \"text\": ") + caption + "}", "line=1", "column=text");
  expect_bad(good + good, "line=2", "line 1 has this picture too");
  expect_bad(good + "\n[]", "line=3", "no JSON object");
  expect_bad(good + "{\"file_name\"", "line=2", "no JSON object");
  expect_bad("{\"file_name\": \"a.png\", \"text\": \"caf\xe9\"}", "line=1", "not UTF-8 at byte 35");
  expect_bad("\n", "names no picture");
}

TEST_F(Captions, ThatAreNotThereAreLookedForUnderOtherNames) {
  picture("a.png", 1);
  testing::expect_error(
      Exit::no_input, [&] { load(); }, "E_CAPTIONS_NONE", folder.path());
  for (const std::string name : {"metadata.json1", "Metadata.jsonl", "metadata.csv"}) {
    text(name, "x");
    testing::expect_error(
        Exit::no_input, [&] { load(); }, "metadata.jsonl is read, \"" + name + "\" is not");
    fs::remove(folder.file(name));
  }
}

TEST_F(Captions, OfImagesThatAreLeftOutAreLeftOut) {
  for (const char* name : {"a", "b", "c"}) {
    picture(std::string(name) + ".png", static_cast<uint8_t>(name[0]));
    text(std::string(name) + ".txt", name);
  }
  text("b.png", "\x89PNG damaged");
  DatasetConfig c = config();
  c.on_bad_image = "skip";
  const auto set = load_dataset(c);
  EXPECT_EQ(set->captions, (CaptionLists{{"a"}, {"c"}}));
  EXPECT_EQ(set->image(1)[0], 'c');
}

TEST_F(Captions, GoWithTheImagesOfASubset) {
  for (const char* name : {"a", "b", "c"}) {
    picture(std::string(name) + ".png", static_cast<uint8_t>(name[0]));
    text(std::string(name) + ".txt", name);
  }
  const std::vector<int64_t> subset = {0, 2};
  EXPECT_EQ(middle_of("", *load(), {1, 1}, subset)->captions, (CaptionLists{{"a"}, {"c"}}));
}

TEST_F(Captions, OfClasses) {
  picture("red cube/a.png", 1);
  picture("ball/a.png", 2);
  DatasetConfig c = config("");
  EXPECT_TRUE(load_dataset(c)->captions.empty());
  const std::string without = load_dataset(c)->content_hash;
  c.captions.pattern = "a photo of a {}, {}";
  EXPECT_EQ(load_dataset(c)->captions,
            (CaptionLists{{"a photo of a ball, {}"}, {"a photo of a red cube, {}"}}));
  EXPECT_NE(load_dataset(c)->content_hash, without);
  c.captions.pattern = "a photo";
  testing::expect_error(
      Exit::config, [&] { load_dataset(c); }, "captions.template");
  c.captions.pattern = "a {}";
  c.path = folder.file("ball");
  testing::expect_error(
      Exit::config, [&] { load_dataset(c); }, "needs classes");
}

TEST_F(Captions, AreContent) {
  picture("a.png", 1);
  std::map<std::string, int> hashes;
  for (const char* caption : {"\"ab\"", "[\"a\", \"b\"]", "\"b\"", "[\"ab\"]"}) {
    text("metadata.jsonl", std::string("{\"file_name\": \"a.png\", \"text\": ") + caption + "}");
    ++hashes[load()->content_hash];
  }
  EXPECT_EQ(hashes.size(), 3U);  // a list of one is that one
}

TEST(CaptionOf, IsAFunctionOfSeedEpochAndSample) {
  ImageSet set;
  constexpr int64_t kSamples = 4000;
  for (int64_t i = 0; i < kSamples; ++i)
    set.captions.push_back(i % 2 ? std::vector<std::string>{"a", "b", "c"}
                                 : std::vector<std::string>{"only"});
  std::array<int64_t, 4> counts{};  // a, b, c, dropped
  int64_t only_dropped = 0, changed = 0, changed_by_seed = 0;
  for (int64_t i = 0; i < kSamples; ++i) {
    const std::string caption = caption_of(set, i, 5, 2, 0.1);
    EXPECT_EQ(caption, caption_of(set, i, 5, 2, 0.1));
    changed += caption != caption_of(set, i, 5, 3, 0.1);
    changed_by_seed += caption != caption_of(set, i, 6, 2, 0.1);
    if (i % 2)
      ++counts[caption.empty() ? 3 : static_cast<size_t>(caption[0] - 'a')];
    else
      only_dropped += caption.empty();
    EXPECT_FALSE(caption_of(set, i, 5, 2, 0).empty());
    EXPECT_TRUE(caption_of(set, i, 5, 2, 1).empty());
  }
  // Five standard deviations of a binomial distribution, of 2000: 600 +- 21, 200 +- 13.4.
  for (int c = 0; c < 3; ++c) EXPECT_NEAR(static_cast<double>(counts[static_cast<size_t>(c)]), 600, 105);
  EXPECT_NEAR(static_cast<double>(counts[3]), 200, 67);
  EXPECT_NEAR(static_cast<double>(only_dropped), 200, 67);
  // 0.18 of those with one caption, 0.72 of those with three: 0.45, +- 0.0079.
  EXPECT_NEAR(static_cast<double>(changed) / kSamples, 0.45, 0.04);
  EXPECT_NEAR(static_cast<double>(changed_by_seed) / kSamples, 0.45, 0.04);
}

}  // namespace
}  // namespace lockstep
