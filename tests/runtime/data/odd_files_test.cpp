// SPDX-License-Identifier: Apache-2.0
// Files as they are found: odd, and whole. What they show is read; what is odd about them is told in a remark.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "runtime/data/codec.h"
#include "runtime/data/input_file.h"
#include "tests/runtime/data/encode.h"
#include "tests/support/files.h"
#include "tests/support/gzip.h"
#include "tests/support/own_cache.h"
#include "tests/support/temporary_folder.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::gzip;
using testing::jpeg;
using testing::png;
using testing::png_chunk;
using testing::TestFolder;
using testing::write_file;
using Bytes = std::vector<uint8_t>;

std::string number(uint32_t n, int bytes, bool big_endian = true) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(n >> 8 * (big_endian ? bytes - 1 - i : i) & 0xff);
  return out;
}

// A TIFF structure of one entry, the Orientation, of any type.
std::string exif(uint32_t type, uint32_t value, int value_bytes, bool big_endian) {
  std::string entry = number(0x0112, 2, big_endian) + number(type, 2, big_endian) + number(1, 4, big_endian) +
                      number(value, value_bytes, big_endian);
  entry.resize(12);
  return (big_endian ? "MM" : "II") + number(42, 2, big_endian) + number(8, 4, big_endian) +
         number(1, 2, big_endian) + entry + number(0, 4, big_endian);
}

// 2 x 1 pixels: red, blue.
std::string red_blue() { return png(2, 1, 8, PNG_COLOR_TYPE_RGB, {255, 0, 0, 0, 0, 255}); }
std::string with_chunk(const std::string& file, const std::string& before, const std::string& chunk) {
  const size_t at = file.find(before) - 4;
  return file.substr(0, at) + chunk + file.substr(at);
}

class OddFiles : public ::testing::Test {
 protected:
  std::string put(const std::string& name, const std::string& bytes) const {
    fs::create_directories(fs::path(folder.file(name)).parent_path());
    write_file(folder.file(name), bytes);
    return folder.file(name);
  }
  Image read(const std::string& bytes, int64_t channels = 3) const {
    return read_image(put("image", bytes), channels);
  }
  DatasetConfig config(const std::string& path = "") const {
    DatasetConfig c;
    c.dataset = "image_folder", c.path = folder.file(path), c.split = "training";
    return c;
  }
  testing::OwnCache cache;
  TestFolder folder;
};

TEST_F(OddFiles, JpegWhoseHeaderIsOddHasAllItsPixels) {
  Bytes rgb;
  for (int i = 0; i < 16 * 16; ++i) rgb.insert(rgb.end(), {200, 100, 50});
  const std::string good = jpeg(16, 16, 3, JCS_RGB, rgb);
  const Image image = read(good);
  EXPECT_EQ(image.remark, "");
  struct Odd {
    const char* what;
    std::string bytes;
  };
  std::vector<Odd> odd;
  {
    std::string file = good;  // the last three bytes of the scan's header are for progressive files
    const size_t scan = file.find("\xff\xda");
    file[scan + 2 + 2 + 1 + 6 + 1] = 0x3e;  // Se, 63
    odd.push_back({"scan parameters", file});
  }
  {
    std::string file = good;
    file[file.find("JFIF") + 5] = 3;  // its major version
    odd.push_back({"JFIF version", file});
  }
  {
    std::string file = good;
    file.insert(file.find("\xff\xdb"), "abc");
    odd.push_back({"bytes between markers", file});
  }
  for (const Odd& o : odd) {
    const Image found = read(o.bytes);
    EXPECT_EQ(found.pixels, image.pixels) << o.what;
    EXPECT_NE(found.remark, "") << o.what;
    EXPECT_EQ(read_image_shape(folder.file("image")), (ImageShape{3, 16, 16})) << o.what;
  }
  // Two of them in one file are one remark.
  std::string both = odd[1].bytes;
  both.insert(both.find("\xff\xdb"), "abc");
  EXPECT_NE(read(both).remark.find("2 such remarks"), std::string::npos) << read(both).remark;
}

TEST_F(OddFiles, OrientationOfAnyIntegerType) {
  for (bool big : {false, true}) {
    for (const auto& [type, bytes] : {std::pair{1u, 1}, {3u, 2}, {4u, 4}, {6u, 1}, {8u, 2}, {9u, 4}}) {
      const Image image = read(with_chunk(red_blue(), "IDAT", png_chunk("eXIf", exif(type, 3, bytes, big))));
      EXPECT_EQ(image.pixels, (Bytes{0, 255, 0, 0, 255, 0})) << "type " << type << (big ? " MM" : " II");
    }
    // 2 is text, 5 a fraction: neither says how a picture lies.
    for (uint32_t type : {2u, 5u})
      EXPECT_EQ(read(with_chunk(red_blue(), "IDAT", png_chunk("eXIf", exif(type, 3, 4, big)))).pixels,
                (Bytes{255, 0, 0, 0, 0, 255}));
  }
}

// Also where the head that is read for the shape ends long before it.
TEST_F(OddFiles, OrientationBehindThePixels) {
  const std::string turned = png_chunk("eXIf", exif(3 /* SHORT */, 6, 2, true));
  const Image image = read(with_chunk(red_blue(), "IEND", turned));
  EXPECT_EQ(image.height, 2);
  EXPECT_EQ(image.width, 1);
  EXPECT_EQ(image.pixels, (Bytes{255, 0, 0, 0, 0, 255}));
  EXPECT_EQ(read_image_shape(folder.file("image")), (ImageShape{3, 2, 1}));
  Bytes noise(100 * 40 * 3);
  for (size_t i = 0; i < noise.size(); ++i)
    noise[i] = static_cast<uint8_t>((i * 2654435761u ^ i * i * 40503u) >> 9);
  const std::string big = png(100, 40, 8, PNG_COLOR_TYPE_RGB, noise);
  ASSERT_GT(big.size(), 8000u);
  put("image", with_chunk(big, "IEND", turned));
  EXPECT_EQ(read_image_shape(folder.file("image")), (ImageShape{3, 100, 40}));
}

// Not by a chunk behind the end, where shape and pixels must agree too.
TEST_F(OddFiles, OrientationBehindTheEndIsNotThePictures) {
  const Image image = read(red_blue() + png_chunk("eXIf", exif(3 /* SHORT */, 6, 2, true)));
  EXPECT_EQ(image.width, 2);
  EXPECT_EQ(read_image_shape(folder.file("image")), (ImageShape{3, 1, 2}));
}

TEST_F(OddFiles, PngWithBytesBehindItOrABadSumOfAnAncillaryChunk) {
  const Bytes pixels = {255, 0, 0, 0, 0, 255};  // planes: red 255 0, green 0 0, blue 0 255
  const Image more = read(red_blue() + "more");
  EXPECT_EQ(more.pixels, pixels);
  EXPECT_EQ(more.remark, "4 bytes behind the image");
  std::string text = png_chunk("tEXt", std::string("Title\0", 6) + "x");
  text.back() ^= 1;
  const Image summed = read(with_chunk(red_blue(), "IDAT", text));
  EXPECT_EQ(summed.pixels, (Bytes{255, 0, 0, 0, 0, 255}));
  EXPECT_NE(summed.remark.find("CRC"), std::string::npos) << summed.remark;
}

TEST_F(OddFiles, PixelsAreBounded) {
  const std::string path = put("image", red_blue());
  EXPECT_EQ(read_image(path, 3, {}, 2).width, 2);
  for (const auto& look : {std::function<void()>([&] { read_image(path, 3, {}, 1); }),
                           std::function<void()>([&] { read_image_shape(path, 1); })})
    expect_error(Exit::data, look, "at most 1 pixels, found 1x2", path);
  put("image", jpeg(16, 16, 1, JCS_GRAYSCALE, Bytes(256)));
  expect_error(
      Exit::data, [&] { read_image(path, 1, {}, 255); }, "16x16", path);
  // Whatever a job allows, not more than a machine bears.
  expect_error(
      Exit::data, [&] { expect_bounded(path, 40000, 40000, 1, INT64_MAX); }, "1600000000 bytes", path);
  DatasetConfig c = config("set");
  put("set/a/x.png", red_blue());
  c.max_pixels = 1;
  expect_error(
      Exit::data, [&] { probe_dataset(c); }, "max_pixels", folder.file("set/a/x.png"));
  expect_error(
      Exit::data, [&] { load_dataset(c); }, "max_pixels", folder.file("set/a/x.png"));
}

// Each coefficient in a scan of its own, and its last bit in another: nothing is wrong but their number.
TEST_F(OddFiles, ScansAreBounded) {
  const auto scans = [](int coefficients) {
    std::vector<jpeg_scan_info> all = {{1, {0}, 0, 0, 0, 0}};
    for (int low : {1, 0})
      for (int k = 1; k <= coefficients; ++k) all.push_back({1, {0}, k, k, low == 1 ? 0 : 1, low});
    return all;
  };
  const Bytes grey(256, 100);
  EXPECT_EQ(read(jpeg(16, 16, 1, JCS_GRAYSCALE, grey, false, JCS_UNKNOWN, scans(40)), 1).pixels, grey);
  expect_error(
      Exit::data, [&] { read(jpeg(16, 16, 1, JCS_GRAYSCALE, grey, false, JCS_UNKNOWN, scans(63)), 1); },
      "more than 100 scans", folder.file("image"));
}

TEST_F(OddFiles, FilesThatAreNoPicturesArePassedOver) {
  put("set/a/1.png", red_blue());
  put("set/a/Thumbs.db", "thumbnails");
  put("set/a/deep/desktop.ini", "[x]");
  put("set/a/without_ending", red_blue());
  put("set/b/2.PNG", red_blue());
  put("set/notes.txt", "a note");
  const DatasetShape shape = probe_dataset(config("set"));
  EXPECT_EQ(shape.count, 3);
  EXPECT_EQ(shape.class_names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(shape.class_counts, (std::vector<int64_t>{2, 1}));
  const auto set = load_dataset(config("set"));
  EXPECT_EQ(set->labels, (std::vector<int32_t>{0, 0, 1}));
  ASSERT_EQ(set->remarks.size(), 3u);
  for (const char* name : {"Thumbs.db", "desktop.ini", "notes.txt"})
    EXPECT_TRUE(std::any_of(set->remarks.begin(), set->remarks.end(), [&](const std::string& r) {
      return r.find(name) != std::string::npos;
    })) << name;
  // What is meant to be a picture is none that is passed over.
  put("set/b/3.webp", "RIFF");
  expect_error(
      Exit::data, [&] { load_dataset(config("set")); }, "52 49 46 46", folder.file("set/b/3.webp"));
}

TEST_F(OddFiles, PicturesWithoutClasses) {
  for (const char* name : {"set/1.png", "set/2.png"}) put(name, red_blue());
  put("set/readme.md", "x");
  const DatasetShape shape = probe_dataset(config("set"));
  EXPECT_EQ(shape.count, 2);
  EXPECT_EQ(shape.classes, 0);
  const auto set = load_dataset(config("set"));
  EXPECT_EQ(set->classes, 0);
  EXPECT_EQ(set->labels, (std::vector<int32_t>{0, 0}));
  // Halves of them.
  for (const char* name : {"halves/train/1.png", "halves/train/2.png", "halves/test/1.png"})
    put(name, red_blue());
  DatasetConfig c = config("halves");
  EXPECT_EQ(load_dataset(c)->count(), 2);
  c.split = "test";
  EXPECT_EQ(load_dataset(c)->count(), 1);
}

TEST_F(OddFiles, AClassCalledTrain) {
  for (const char* name : {"set/bus/1.png", "set/car/1.png", "set/train/1998/1.png", "set/train/1999/1.png"})
    put(name, red_blue());
  const DatasetShape shape = probe_dataset(config("set"));
  EXPECT_EQ(shape.class_names, (std::vector<std::string>{"bus", "car", "train"}));
  EXPECT_EQ(shape.class_counts, (std::vector<int64_t>{1, 1, 2}));
  // A folder without pictures beside them does not make them classes.
  for (const char* name : {"halves/train/a/1.png", "halves/test/a/1.png", "halves/val/a/1.png"})
    put(name, red_blue());
  put("halves/labels/a.json", "{}");
  EXPECT_EQ(probe_dataset(config("halves")).class_names, (std::vector<std::string>{"a"}));
}

TEST_F(OddFiles, PicturesBesideTheClassesAreInNone) {
  put("set/a/1.png", red_blue());
  put("set/loose.png", red_blue());
  const auto set = load_dataset(config("set"));
  EXPECT_EQ(set->count(), 1);
  ASSERT_EQ(set->remarks.size(), 1u);
  EXPECT_NE(set->remarks[0].find("loose.png"), std::string::npos);
}

// Halves by other names, or with more beside them, are no classes: which part a picture is in would be learned, and the
// pictures to test with too.
TEST_F(OddFiles, PartsOfASetAreNoClasses) {
  const std::vector<std::vector<std::string>> all = {
      {"Train", "Test"}, {"training", "testing"}, {"train", "test", "extra"}, {"VAL", "train", "unlabelled"}};
  for (size_t i = 0; i < all.size(); ++i) {
    const std::string set = "set" + std::to_string(i);
    for (const std::string& part : all[i])
      for (const char* picture : {"/cat/1.png", "/dog/1.png"}) put(set + "/" + part + picture, red_blue());
    expect_error(
        Exit::data, [&] { probe_dataset(config(set)); }, all[i][0], all[i][1], folder.file(set), "hint");
    DatasetConfig part = config(set + "/" + all[i][0]);
    EXPECT_EQ(probe_dataset(part).class_names, (std::vector<std::string>{"cat", "dog"}));
  }
  // One such name alone is a word like others.
  for (const char* name : {"words/Test/1.png", "words/exam/1.png"}) put(name, red_blue());
  EXPECT_EQ(probe_dataset(config("words")).class_names, (std::vector<std::string>{"Test", "exam"}));
}

TEST_F(OddFiles, FoldersWithinClassesAreSaid) {
  for (const char* name : {"set/bus/2019/1.png", "set/bus/2020/1.png", "set/car/1.png"})
    put(name, red_blue());
  const auto set = load_dataset(config("set"));
  EXPECT_EQ(set->labels, (std::vector<int32_t>{0, 0, 1}));
  ASSERT_EQ(set->remarks.size(), 1u);
  EXPECT_NE(set->remarks[0].find("bus/2019: one of 2 folders within"), std::string::npos) << set->remarks[0];
}

TEST_F(OddFiles, WhatSystemsLeaveIsNoClassAndNoPicture) {
  for (const char* name : {"set/a/1.png", "set/b/1.png", "set/a/@eaDir/1.png/thumb.png", "set/@eaDir/x.png",
                           "set/b/__MACOSX/._1.png", "set/__MACOSX/a/._1.png", "set/a/._1.png",
                           "set/.DS_Store", "set/lost+found/1.png"})
    put(name, red_blue());
  const DatasetShape shape = probe_dataset(config("set"));
  EXPECT_EQ(shape.class_names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(shape.class_counts, (std::vector<int64_t>{1, 1}));
}

TEST_F(OddFiles, LinksThatLeadBackAreRefused) {
  for (const char* name : {"set/a/1.png", "set/b/1.png"}) put(name, red_blue());
  fs::create_symlink("..", folder.file("set/a/up"));
  expect_error(
      Exit::data, [&] { probe_dataset(config("set")); }, "32 levels", folder.file("set/a/up"), "a link");
}

// A composed accent and a letter with an accent behind it: one name, as another system writes it.
TEST_F(OddFiles, NamesOfClassesAreInNormalForm) {
  for (const char* name : {"train/caf\xc3\xa9/1.png", "train/tea/1.png", "test/cafe\xcc\x81/1.png"})
    put(name, red_blue());
  const DatasetShape seen = probe_dataset(config());
  EXPECT_EQ(seen.class_names, (std::vector<std::string>{"caf\xc3\xa9", "tea"}));
  DatasetConfig c = config();
  c.split = "test";
  EXPECT_EQ(load_dataset(c, 1, &seen)->labels, (std::vector<int32_t>{0}));
  put("train/cafe\xcc\x81/1.png", red_blue());
  expect_error(
      Exit::data, [&] { probe_dataset(config()); }, "the same name");
}

TEST_F(OddFiles, LabelsFollowTheNamesOfClasses) {
  for (const char* name : {"train/cat/1.png", "train/dog/1.png", "train/fox/1.png"}) put(name, red_blue());
  put("test/dog/1.png", png(2, 1, 8, PNG_COLOR_TYPE_GRAY, {7, 9}));
  put("test/fox/1.png", png(2, 1, 8, PNG_COLOR_TYPE_GRAY, {7, 9}));
  const DatasetShape seen = probe_dataset(config());
  EXPECT_EQ(seen.class_names, (std::vector<std::string>{"cat", "dog", "fox"}));
  DatasetConfig c = config();
  c.split = "test";
  const auto set = load_dataset(c, 1, &seen);
  EXPECT_EQ(set->labels, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(set->class_names, seen.class_names);
  EXPECT_EQ(set->channels, 3);  // grey pictures for a model of colour
  EXPECT_EQ(Bytes(set->image(0), set->image(0) + 6), (Bytes{7, 9, 7, 9, 7, 9}));
  ASSERT_EQ(set->remarks.size(), 1u);
  EXPECT_NE(set->remarks[0].find("\"cat\""), std::string::npos);
  EXPECT_EQ(probe_dataset(c, &seen).channels, 3);

  put("test/yak/1.png", red_blue());
  for (const auto& look : {std::function<void()>([&] { load_dataset(c, 1, &seen); }),
                           std::function<void()>([&] { probe_dataset(c, &seen); })})
    expect_error(Exit::data, look, "\"yak\"", folder.path());
}

TEST_F(OddFiles, ColourForAModelOfGrey) {
  put("train/a/1.png", png(1, 1, 8, PNG_COLOR_TYPE_GRAY, {7}));
  put("test/a/1.png", png(1, 1, 8, PNG_COLOR_TYPE_RGB, {255, 0, 0}));
  const DatasetShape seen = probe_dataset(config());
  DatasetConfig c = config();
  c.split = "test";
  EXPECT_EQ(*load_dataset(c, 1, &seen)->image(0), 76);
}

TEST_F(OddFiles, GzipOfSeveralMembers) {
  const auto content = [&](const std::string& bytes) {
    InputFile file(put("x.gz", bytes));
    std::string text(6, '\0');
    file.read(text.data(), 6);
    file.expect_end();
    return text;
  };
  EXPECT_EQ(content(gzip("abc") + gzip("def")), "abcdef");
  EXPECT_EQ(content(gzip("abc") + gzip("") + gzip("def")), "abcdef");
  EXPECT_EQ(content(gzip("abcdef") + std::string(512, '\0')), "abcdef");  // padded, as gzip -t accepts it
  expect_error(
      Exit::data, [&] { content(gzip("abc") + gzip("def").substr(0, 12)); }, "ends early");
  expect_error(
      Exit::data, [&] { content(gzip("abcdef") + "more"); }, "found more");
  expect_error(
      Exit::data, [&] { content(gzip("abcdef") + std::string(4, '\0') + "more"); }, "found more");
  expect_error(
      Exit::data, [&] { content(gzip("abcdef") + gzip("g")); }, "found more");
}

}  // namespace
}  // namespace lockstep
