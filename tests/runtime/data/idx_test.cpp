// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <filesystem>

#include "runtime/data/dataset.h"
#include "tests/support/files.h"
#include "tests/support/gzip.h"
#include "tests/support/temporary_folder.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::gzip;
using testing::TestFolder;
using testing::write_file;

std::string u32(uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8),
          static_cast<char>(v)};
}

constexpr int kCount = 6, kIdxSide = 3;

std::string images(uint32_t count = kCount, uint32_t height = kIdxSide, uint32_t width = kIdxSide) {
  std::string s = u32(0x803) + u32(count) + u32(height) + u32(width);
  for (int i = 0; i < kCount * kIdxSide * kIdxSide; ++i) s.push_back(static_cast<char>(i * 5));
  return s;
}
std::string labels(uint32_t count = kCount) {
  std::string s = u32(0x801) + u32(count);
  for (int i = 0; i < kCount; ++i) s.push_back(static_cast<char>(i));
  return s;
}

class Idx : public ::testing::Test {
 protected:
  DatasetConfig mnist(const std::string& split = "training") const {
    DatasetConfig c;
    c.dataset = "mnist";
    c.path = folder.path();
    c.split = split;
    c.where = "job.yaml:5:3";
    return c;
  }
  void put(const std::string& image_bytes, const std::string& label_bytes) {
    // A new file each time: rewriting one in place is 20 times slower on some file systems.
    fs::remove(images_path);
    fs::remove(labels_path);
    write_file(images_path, image_bytes);
    write_file(labels_path, label_bytes);
  }
  // The data's own fault: exit 65 from load_dataset; probe_dataset never says otherwise than 65 or nothing.
  template <class... Words>
  void refused(const Words&... words) {
    expect_error(
        Exit::data, [&] { load_dataset(mnist()); }, words..., std::string("job=job.yaml:5:3"));
  }

  TestFolder folder;
  std::string images_path = folder.file("train-images-idx3-ubyte"),
              labels_path = folder.file("train-labels-idx1-ubyte");
};

TEST_F(Idx, EverySpelling) {
  std::string hash;
  for (const char* separator : {"-", "."})
    for (const std::string gz : {"", ".gz"})
      for (const std::string prefix : {"train", "t10k"}) {
        const TestFolder here;
        const auto pack = [&](const std::string& s) { return gz.empty() ? s : gzip(s); };
        write_file(here.file(prefix + "-images" + separator + "idx3-ubyte" + gz), pack(images()));
        write_file(here.file(prefix + "-labels" + separator + "idx1-ubyte" + gz), pack(labels()));
        DatasetConfig c = mnist(prefix == "train" ? "training" : "test");
        c.path = here.path();
        const auto set = load_dataset(c);
        EXPECT_EQ(set->count(), kCount);
        EXPECT_EQ(set->height, kIdxSide);
        EXPECT_EQ(set->image(2)[1], (2 * 9 + 1) * 5);
        EXPECT_EQ(set->labels, (std::vector<int32_t>{0, 1, 2, 3, 4, 5}));
        EXPECT_EQ(set->classes, 10);
        EXPECT_EQ(set->class_names.size(), 10u);
        EXPECT_EQ(set->content_hash.size(), 64u);
        if (hash.empty()) hash = set->content_hash;
        EXPECT_EQ(set->content_hash, hash);
        const DatasetShape shape = probe_dataset(c);
        EXPECT_EQ(shape.count, kCount);
        EXPECT_EQ(shape.width, kIdxSide);
      }
}

TEST_F(Idx, Missing) {
  const auto load = [&] { load_dataset(mnist()); };
  expect_error(Exit::no_input, load, images_path, "lockstep data get mnist --to " + folder.path());
  expect_error(
      Exit::no_input, [&] { probe_dataset(mnist()); }, images_path);
  write_file(images_path, images());
  expect_error(Exit::no_input, load, labels_path);
  DatasetConfig nowhere = mnist();
  nowhere.path = folder.file("nowhere");
  nowhere.dataset = "fashion_mnist";
  expect_error(
      Exit::no_input, [&] { load_dataset(nowhere); }, "lockstep data get fashion_mnist --to " + nowhere.path);
}

TEST_F(Idx, UnknownName) {
  DatasetConfig c = mnist();
  c.dataset = "imagenet";
  expect_error(
      Exit::config, [&] { load_dataset(c); }, "imagenet", "image_folder");
}

TEST_F(Idx, WrongMagic) {
  put(labels(), labels());
  refused(images_path, "offset=0", "0x00000803", "0x00000801");
  put(images(), images());
  refused(labels_path, "offset=0", "0x00000801", "0x00000803");
}

TEST_F(Idx, PlainTruncatedAtEveryLength) {
  for (size_t n = 0; n < images().size(); ++n) {
    put(images().substr(0, n), labels());
    refused(images_path, "expected");
  }
  for (size_t n = 0; n < labels().size(); ++n) {
    put(images(), labels().substr(0, n));
    refused(labels_path, "expected");
  }
}

TEST_F(Idx, PlainOverlong) {
  put(images() + "x", labels());
  refused(images_path, "offset=70", "expected the end");
  put(images(), labels() + "x");
  refused(labels_path, "offset=14", "expected the end");
}

TEST_F(Idx, CountsDiffer) {
  put(images(), labels(kCount - 1));
  refused(labels_path, "expected 6 labels", "found 5");
}

TEST_F(Idx, LabelOutOfRange) {
  std::string bad = labels();
  bad[8 + 4] = 10;
  put(images(), bad);
  refused(labels_path, "offset=12", "0 to 9", "found 10");
}

// What a header claims is held against the file before anything of that size is allocated: with 16 EB
// claimed, an allocation would fail the test.
TEST_F(Idx, HeadersThatLie) {
  for (const auto& [n, h, w] : {std::array<uint32_t, 3>{~0u, 16384, 16384},
                                {~0u, 3, 3},
                                {7, 3, 3},
                                {0, 3, 3},
                                {6, 0, 3},
                                {6, 3, 0},
                                {6, 3, ~0u},
                                {6, ~0u, 3},
                                {6, 3, 4},
                                {6, 3, 2},
                                {5, 3, 3}}) {
    put(images(n, h, w), labels());
    refused("file=");
    put(gzip(images(n, h, w)), gzip(labels()));
    refused("file=");
  }
  put(images(), labels(~0u));
  refused(labels_path);
  put(images(), gzip(labels(~0u)));
  refused(labels_path);
}

// Refused with 65, or, where the format leaves a bit without meaning, the set is the same.
TEST_F(Idx, GzipWithEveryBitFlipped) {
  put(images(), labels());
  const std::string hash = load_dataset(mnist())->content_hash;
  const std::string good = gzip(images());
  for (size_t i = 0; i < good.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] ^= static_cast<char>(1 << bit);
      put(bad, labels());
      bool same = false;
      const auto error = testing::error_of([&] { same = load_dataset(mnist())->content_hash == hash; });
      EXPECT_TRUE(error ? error->exit() == Exit::data : same) << "byte " << i << " bit " << bit;
      // The header's `text` flag, time, extra flags and system; and what fills up the last byte before the
      // trailer.
      const bool idle = (i == 3 && bit == 0) || (i >= 4 && i <= 9) || (i == good.size() - 9 && bit > 0);
      EXPECT_TRUE(error || idle) << "byte " << i << " bit " << bit;
    }
}

TEST_F(Idx, GzipTruncatedAtEveryLength) {
  const std::string good = gzip(images());
  for (size_t n = 0; n < good.size(); ++n) {
    put(good.substr(0, n), labels());
    refused(images_path);
  }
}

TEST_F(Idx, GzipFollowedByGarbage) {
  for (const std::string& tail : {std::string("x"), std::string("\0x", 2)}) {
    put(gzip(images()) + tail, labels());
    refused(images_path, "after the gzip stream");
  }
  put(gzip(images()) + gzip("x"), labels());  // a member more, and content more
  refused(images_path, "expected the end of the content", "offset=70");
  put(gzip(images() + "x"), labels());
  refused(images_path, "expected the end of the content", "offset=70");
}

// Plain pixels carry no check sum: any flip loads as another set, and never crashes.
TEST_F(Idx, PlainWithEveryByteFlipped) {
  put(images(), labels());
  const std::string hash = load_dataset(mnist())->content_hash;
  for (size_t i = 0; i < images().size(); ++i) {
    std::string bad = images();
    bad[i] ^= static_cast<char>(0xff);
    put(bad, labels());
    if (i < 16)
      refused(images_path);
    else
      EXPECT_NE(load_dataset(mnist())->content_hash, hash);
  }
}

TEST_F(Idx, AFolderInPlaceOfTheFile) {
  fs::create_directory(images_path);
  write_file(labels_path, labels());
  expect_error(
      Exit::no_input, [&] { load_dataset(mnist()); }, images_path);
}

TEST_F(Idx, ExplicitFiles) {
  DatasetConfig c;
  c.dataset = "idx";
  c.split = "training";
  const std::vector<std::pair<std::string, std::string>> pairs = {
      {"emnist-letters-train-images-idx3-ubyte", "emnist-letters-train-labels-idx1-ubyte"},
      {"my-images.idx3-ubyte.gz", "my-labels.idx1-ubyte"},
      {"images", "labels.gz"}};
  for (const auto& [image_name, label_name] : pairs) {
    const TestFolder here;
    c.path = here.file(image_name);
    expect_error(
        Exit::no_input, [&] { load_dataset(c); }, c.path);
    write_file(c.path, image_name.ends_with(".gz") ? gzip(images()) : images());
    expect_error(
        Exit::no_input, [&] { load_dataset(c); }, "labels");
    write_file(here.file(label_name), label_name.ends_with(".gz") ? gzip(labels()) : labels());
    const auto set = load_dataset(c);
    EXPECT_EQ(set->classes, kCount);  // the largest label is 5
    EXPECT_EQ(set->class_names.back(), "5");
    EXPECT_EQ(probe_dataset(c).classes, kCount);
  }
  c.path = folder.file("pixels.bin");
  expect_error(
      Exit::config, [&] { load_dataset(c); }, "images", "labels");
}

}  // namespace
}  // namespace lockstep
