// SPDX-License-Identifier: Apache-2.0
// Damaged PNG and JPEG files in a folder of good ones: each stops the job with 65 and its own name, or is
// left out.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>

#include "runtime/data/codec.h"
#include "tests/runtime/data/encode.h"
#include "tests/support/files.h"
#include "tests/support/own_cache.h"
#include "tests/support/temporary_folder.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::jpeg;
using testing::png;
using testing::png_chunk;

constexpr int kSide = 16;

std::vector<uint8_t> noise(size_t n) {
  std::vector<uint8_t> v(n);
  for (size_t i = 0; i < n; ++i) v[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
  return v;
}

std::string good_png() { return png(kSide, kSide, 8, PNG_COLOR_TYPE_RGB, noise(kSide * kSide * 3)); }
std::string good_jpeg() { return jpeg(kSide, kSide, 3, JCS_RGB, noise(kSide * kSide * 3)); }

std::string big_endian(uint32_t n, int bytes) {
  std::string out;
  for (int i = bytes - 1; i >= 0; --i) out += static_cast<char>(n >> 8 * i & 0xff);
  return out;
}

// With other numbers in the first chunk, whose check sum fits.
std::string png_claiming(uint32_t width, uint32_t height) {
  const std::string file = good_png();
  return file.substr(0, 8) +
         png_chunk("IHDR", big_endian(width, 4) + big_endian(height, 4) + file.substr(24, 5)) +
         file.substr(33);
}
std::string png_with(size_t at, char byte) {
  std::string file = good_png();
  file[at] = byte;
  return file;
}
size_t pixels_of(const std::string& file) { return file.find("IDAT") + 4; }
// Compressed pixels that are none, under a check sum that fits.
std::string png_of_noise() {
  const std::string file = good_png();
  const auto bytes = noise(200);
  return file.substr(0, pixels_of(file) - 8) + png_chunk("IDAT", std::string(bytes.begin(), bytes.end())) +
         png_chunk("IEND", "");
}

// The frame header's height and width stand 3 bytes behind its length.
std::string jpeg_claiming(uint32_t width, uint32_t height) {
  std::string file = good_jpeg();
  return file.replace(file.find("\xff\xc0") + 5, 4, big_endian(height, 2) + big_endian(width, 2));
}
std::string jpeg_with_bad_tables() {
  std::string file = good_jpeg();
  const size_t table = file.find("\xff\xc4");
  return file.replace(table + 5, 16, std::string(16, '\xff'));  // more codes of each length than there can be
}
std::string jpeg_without_quantisation() {
  std::string file = good_jpeg();
  for (size_t table; (table = file.find("\xff\xdb")) != std::string::npos;)
    file.erase(table, 2 + static_cast<size_t>(static_cast<uint8_t>(file[table + 2]) << 8 |
                                              static_cast<uint8_t>(file[table + 3])));
  return file;
}
// A marker that cannot stand within pixels.
std::string jpeg_with_marker_in_scan() {
  std::string file = good_jpeg();
  return file.replace(file.size() - 60, 2, "\xff\xd8");
}

struct Damage {
  std::string name, bytes;
  std::string words;  // of the message
};
void PrintTo(const Damage& d, std::ostream* out) { *out << d.name; }

std::vector<Damage> damages() {
  const std::string p = good_png(), j = good_jpeg();
  return {
      {"nothing", "", "an empty file"},
      {"zeros", std::string(500, '\0'), "00 00 00"},
      {"text_called_png", "this is a text\n", "PNG or JPEG"},
      {"gif_called_png", "GIF89a" + std::string(100, 'x'), "47 49 46"},
      {"png_signature_alone", p.substr(0, 8), "ends early"},
      {"png_cut_in_header", p.substr(0, 20), "ends early"},
      {"png_cut_in_pixels", p.substr(0, pixels_of(p) + 100), "ends early"},
      {"png_cut_before_end", p.substr(0, p.size() - 12), "ends early"},
      {"png_bad_sum_of_header", png_with(29, 'x'), "CRC"},
      {"png_bad_sum_of_pixels", png_with(pixels_of(p) + 50, static_cast<char>(p[pixels_of(p) + 50] ^ 1)),
       "damaged"},
      {"png_bad_signature", png_with(5, 'x'), "PNG or JPEG"},
      {"png_pixels_not_compressed", png_of_noise(), "damaged"},
      {"png_more_rows_than_pixels", png_claiming(kSide, kSide + 1), "damaged"},
      {"png_wider_than_pixels", png_claiming(kSide + 1, kSide), "damaged"},
      {"png_no_width", png_claiming(0, kSide), "damaged"},
      {"png_claims_a_giant", png_claiming(60000, 60000), "60000x60000"},
      {"jpeg_cut_in_header", j.substr(0, 30), "damaged"},
      {"jpeg_cut_in_pixels", j.substr(0, j.size() - 100), "damaged"},
      {"jpeg_cut_before_end", j.substr(0, j.size() - 2), "damaged"},
      {"jpeg_bad_signature", "\xff\xd7" + j.substr(2), "ff d7"},
      {"jpeg_bad_huffman_table", jpeg_with_bad_tables(), "damaged"},
      {"jpeg_no_quantisation", jpeg_without_quantisation(), "damaged"},
      {"jpeg_marker_in_pixels", jpeg_with_marker_in_scan(), "damaged"},
      {"jpeg_more_rows_than_pixels", jpeg_claiming(kSide, 3 * kSide), "damaged"},
      {"jpeg_no_height", jpeg_claiming(kSide, 0), "damaged"},
      {"jpeg_claims_a_giant", jpeg_claiming(7013, 7013), "cannot hold"},
  };
}

class BadImages : public ::testing::TestWithParam<Damage> {
 protected:
  void put(const std::string& name, const std::string& bytes) const {
    fs::create_directories(fs::path(folder.file(name)).parent_path());
    testing::write_file(folder.file(name), bytes);
  }
  DatasetConfig config(const std::string& on_bad_image) const {
    DatasetConfig c;
    c.dataset = "image_folder";
    c.path = folder.file("set");
    c.split = "training";
    c.fit.resize = {kSide, kSide};  // so that a false size is no reason of its own
    c.on_bad_image = on_bad_image;
    c.where = "job.yaml:4:3";
    return c;
  }
  testing::TestFolder folder;
};

TEST_P(BadImages, StopsOrIsSkipped) {
  put("set/a/1.png", good_png());
  put("set/a/2.png", GetParam().bytes);
  put("set/b/1.jpg", good_jpeg());
  const std::string bad = folder.file("set/a/2.png");
  for (int threads : {1, 3})
    expect_error(
        Exit::data, [&] { load_dataset(config("stop"), threads); }, "file=" + bad, GetParam().words,
        "job=job.yaml:4:3");

  for (int threads : {1, 3}) {
    const auto set = load_dataset(config("skip"), threads);
    EXPECT_EQ(set->labels, (std::vector<int32_t>{0, 1}));
    ASSERT_EQ(set->skipped.size(), 1u);
    EXPECT_TRUE(set->skipped[0].starts_with(bad + ": ")) << set->skipped[0];
    EXPECT_NE(set->skipped[0].find(GetParam().words), std::string::npos) << set->skipped[0];
    const auto expected = read_image(folder.file("set/b/1.jpg"), 3).pixels;
    EXPECT_EQ(std::vector<uint8_t>(set->image(1), set->image(2)), expected) << "what follows moves up";
  }
}
INSTANTIATE_TEST_SUITE_P(Kinds, BadImages, ::testing::ValuesIn(damages()),
                         [](const auto& test) { return test.param.name; });

class BadFolders : public BadImages {};

TEST_F(BadFolders, TheFirstBadOneIsNamedWhateverTheThreads) {
  for (int i = 0; i < 40; ++i)
    put(fmt::format("set/a/{:02}.png", i), i >= 7 && i % 3 == 1 ? "bad" : good_png());
  for (int threads : {1, 2, 8})
    expect_error(
        Exit::data, [&] { load_dataset(config("stop"), threads); }, "file=" + folder.file("set/a/07.png"));
  const auto set = load_dataset(config("skip"), 8);
  EXPECT_EQ(set->count(), 29);
  EXPECT_EQ(set->skipped.size(), 11u);
  EXPECT_TRUE(std::ranges::is_sorted(set->skipped));
  EXPECT_EQ(probe_dataset(config("skip")).count, 29);
}

TEST_F(BadFolders, AClassMustKeepAnImage) {
  put("set/a/1.png", good_png());
  put("set/b/1.png", "bad");
  put("set/b/2.png", good_png().substr(0, 200));  // its header is good
  expect_error(
      Exit::data, [&] { load_dataset(config("skip")); }, "class \"b\"", folder.file("set/b/1.png"));
}

TEST_F(BadFolders, WhatIsNotTheImagesFaultIsNotSkipped) {
  put("set/a/1.png", good_png());
  fs::create_symlink(folder.file("nowhere"), folder.file("set/a/2.png"));
  expect_error(
      Exit::no_input, [&] { load_dataset(config("skip")); }, folder.file("set/a/2.png"));
}

TEST_F(BadFolders, OddSizesAreFittedOrNamed) {
  put("set/a/1.png", good_png());
  put("set/a/2.png", png(20, 30, 8, PNG_COLOR_TYPE_GRAY, noise(600)));
  DatasetConfig c = config("skip");
  EXPECT_EQ(load_dataset(c)->count(), 2);
  c.fit = {{12, 0}, {12, 0}};
  const auto set = load_dataset(c);
  EXPECT_EQ(set->height, 12);
  EXPECT_EQ(set->width, 12);
  c.fit = {{12, 0}, {}};
  expect_error(
      Exit::data, [&] { load_dataset(c); }, "file=" + folder.file("set/a/2.png"), "12x12", "18x12", "crop");
  c.fit = {{}, {17, 0}};
  c.on_bad_image = "stop";
  expect_error(
      Exit::data, [&] { load_dataset(c); }, folder.file("set/a/1.png"), "at least 17x17");
}

// What was skipped is in the cache too, and other options are another entry of it.
TEST_F(BadFolders, TheCacheKnowsOptionsAndWhatWasSkipped) {
  const testing::OwnCache own;
  put("set/a/1.png", good_png());
  put("set/a/2.png", "bad");
  DatasetConfig c = config("skip");
  c.fit.resize = {600, 600};                                    // enough to be worth keeping
  std::this_thread::sleep_for(std::chrono::milliseconds(150));  // younger sources are not cached
  const auto first = load_dataset(c), again = load_dataset(c);
  EXPECT_EQ(again->skipped, first->skipped);
  EXPECT_EQ(again->skipped.size(), 1u);
  EXPECT_EQ(again->content_hash, first->content_hash);
  c.fit.resize = {601, 600};
  EXPECT_EQ(load_dataset(c)->height, 601);
  c.on_bad_image = "stop";
  expect_error(
      Exit::data, [&] { load_dataset(c); }, folder.file("set/a/2.png"));
}

}  // namespace
}  // namespace lockstep
