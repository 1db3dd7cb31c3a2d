// SPDX-License-Identifier: Apache-2.0
// PNG and JPEG files, and folders of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "runtime/data/codec.h"
#include "runtime/data/exif.h"
#include "tests/runtime/data/encode.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::jpeg;
using testing::png;
using testing::read_file;
using testing::TestFolder;
using testing::write_file;

std::vector<uint8_t> ramp(int n) {
  std::vector<uint8_t> v(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) v[static_cast<size_t>(i)] = static_cast<uint8_t>(i * 11 + 3);
  return v;
}

class Images : public ::testing::Test {
 protected:
  std::string put(const std::string& name, const std::string& bytes) const {
    fs::create_directories(fs::path(folder.file(name)).parent_path());
    write_file(folder.file(name), bytes);
    return folder.file(name);
  }
  Image read(const std::string& bytes, int64_t channels) const {
    return read_image(put("image", bytes), channels);
  }
  TestFolder folder;
};

using Bytes = std::vector<uint8_t>;
Bytes bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

TEST_F(Images, PngOfEveryKind) {
  const Bytes grey = ramp(12);
  const Image g = read(png(4, 3, 8, PNG_COLOR_TYPE_GRAY, grey), 1);
  EXPECT_EQ(g.channels, 1);
  EXPECT_EQ(g.height, 3);
  EXPECT_EQ(g.width, 4);
  EXPECT_EQ(g.pixels, grey);
  EXPECT_EQ(read(png(4, 3, 8, PNG_COLOR_TYPE_GRAY, grey, true), 1).pixels, grey);
  // 1 bit: 0 and 1 become 0 and 255.
  EXPECT_EQ(read(png(4, 1, 1, PNG_COLOR_TYPE_GRAY, {0b10100000}), 1).pixels, (Bytes{255, 0, 255, 0}));
  // 16 bits, scaled to 8: 0x8080 is 128 exactly, 0xff00 of 65535 is 254 of 255.
  EXPECT_EQ(read(png(2, 1, 16, PNG_COLOR_TYPE_GRAY, {0x80, 0x80, 0xff, 0x00}), 1).pixels, (Bytes{128, 254}));
  // Planes, not pixels.
  EXPECT_EQ(read(png(2, 1, 8, PNG_COLOR_TYPE_RGB, {1, 2, 3, 4, 5, 6}), 3).pixels, (Bytes{1, 4, 2, 5, 3, 6}));
  EXPECT_EQ(read(png(4, 1, 2, PNG_COLOR_TYPE_PALETTE, {0b00011011}), 3).pixels,
            (Bytes{1, 40, 0, 9, 2, 50, 255, 9, 3, 60, 0, 9}));
}

TEST_F(Images, ConvertsBetweenGreyAndColour) {
  EXPECT_EQ(read(png(2, 1, 8, PNG_COLOR_TYPE_GRAY, {7, 200}), 3).pixels, (Bytes{7, 200, 7, 200, 7, 200}));
  // BT.601: 0.299 R + 0.587 G + 0.114 B.
  EXPECT_EQ(read(png(4, 1, 8, PNG_COLOR_TYPE_RGB, {255, 0, 0, 0, 255, 0, 0, 0, 255, 77, 77, 77}), 1).pixels,
            (Bytes{76, 150, 29, 77}));
}

TEST_F(Images, AlphaIsDroppedWhereItIsOpaqueElseRefused) {
  EXPECT_EQ(read(png(1, 1, 8, PNG_COLOR_TYPE_RGBA, {1, 2, 3, 255}), 3).pixels, (Bytes{1, 2, 3}));
  EXPECT_EQ(read(png(1, 1, 8, PNG_COLOR_TYPE_GRAY_ALPHA, {9, 255}), 1).pixels, (Bytes{9}));
  expect_error(
      Exit::data,
      [&] {
        read(png(2, 1, 8, PNG_COLOR_TYPE_GRAY_ALPHA, {9, 255, 9, 254}), 1);
      },
      "alpha 254 at row 0, column 1", folder.file("image"));
  expect_error(
      Exit::data, [&] { read(png(4, 1, 2, PNG_COLOR_TYPE_PALETTE, {0b00011011}, false, true), 3); },
      "alpha 0");
  EXPECT_EQ(read(png(2, 1, 2, PNG_COLOR_TYPE_PALETTE, {0b00110000}, false, true), 3).pixels,
            (Bytes{1, 9, 2, 9, 3, 9}));
}

TEST_F(Images, Jpeg) {
  const Bytes grey(64, 100);
  EXPECT_EQ(read(jpeg(8, 8, 1, JCS_GRAYSCALE, grey), 1).pixels, grey);
  for (bool progressive : {false, true}) {
    Bytes rgb;
    for (int i = 0; i < 16 * 16; ++i) rgb.insert(rgb.end(), {200, 100, 50});
    const Image image = read(jpeg(16, 16, 3, JCS_RGB, rgb, progressive), 3);
    EXPECT_EQ(image.channels, 3);
    // One colour survives but for the rounding to YCbCr and back, at most 1 at quality 100.
    for (size_t i = 0; i < 256; ++i) {
      EXPECT_NEAR(image.pixels[i], 200, 1);
      EXPECT_NEAR(image.pixels[256 + i], 100, 1);
      EXPECT_NEAR(image.pixels[512 + i], 50, 1);
    }
  }
}

// Adobe's inks: 255 is none. What Pillow makes of them, to the rounding of the JPEG.
TEST_F(Images, JpegOfFourInks) {
  for (J_COLOR_SPACE space : {JCS_CMYK, JCS_YCCK}) {
    Bytes inks;
    for (int i = 0; i < 16 * 16; ++i) inks.insert(inks.end(), {200, 100, 255, 150});
    const std::string file = jpeg(16, 16, 4, JCS_CMYK, inks, false, space);
    const Image image = read(file, 3);
    const std::array<int, 3> rgb = {118, 59, 150};  // ink x black / 255
    for (size_t c = 0; c < 3; ++c)
      for (size_t i = 0; i < 256; ++i) ASSERT_NEAR(image.pixels[256 * c + i], rgb[c], 2) << "channel " << c;
    EXPECT_EQ(read_image_shape(folder.file("image")), (ImageShape{3, 16, 16}));
  }
}

// TIFF with one entry before the orientation.
std::string exif(int orientation, bool big_endian) {
  std::string out = big_endian ? "MM" : "II";
  const auto put = [&](uint32_t value, int length) {
    for (int i = 0; i < length; ++i)
      out += static_cast<char>(value >> 8 * (big_endian ? length - 1 - i : i) & 0xff);
  };
  put(42, 2), put(8, 4), put(2, 2);
  put(0x0100, 2), put(4, 2), put(1, 4), put(640, 4);
  put(0x0112, 2), put(3, 2), put(1, 4), put(static_cast<uint32_t>(orientation), 2), put(0, 2);
  put(0, 4);
  return out;
}

TEST_F(Images, ExifTurnsPicturesUpright) {
  //   1 2 3
  //   4 5 6
  const std::string plain = png(3, 2, 8, PNG_COLOR_TYPE_GRAY, {1, 2, 3, 4, 5, 6});
  const std::vector<std::pair<int64_t, Bytes>> expected = {
      // height, pixels
      {2, {1, 2, 3, 4, 5, 6}}, {2, {3, 2, 1, 6, 5, 4}}, {2, {6, 5, 4, 3, 2, 1}}, {2, {4, 5, 6, 1, 2, 3}},
      {3, {1, 4, 2, 5, 3, 6}}, {3, {4, 1, 5, 2, 6, 3}}, {3, {6, 3, 5, 2, 4, 1}}, {3, {3, 6, 2, 5, 1, 4}}};
  for (int orientation = 1; orientation <= 8; ++orientation)
    for (bool big_endian : {false, true}) {
      std::string file = plain;
      file.insert(33, testing::png_chunk("eXIf", exif(orientation, big_endian)));
      const Image image = read(file, 1);
      const auto& [height, pixels] = expected[static_cast<size_t>(orientation) - 1];
      EXPECT_EQ(image.height, height) << orientation;
      EXPECT_EQ(image.pixels, pixels) << orientation;
      EXPECT_EQ(read_image_shape(folder.file("image")), (ImageShape{1, height, 6 / height}));
    }
  // A JPEG whose upper half is dark, taken with the camera's right side up: the dark half comes to the right.
  Bytes rows(16 * 24, 20);
  std::fill(rows.begin() + 8 * 24, rows.end(), 220);
  std::string file = jpeg(24, 16, 1, JCS_GRAYSCALE, rows);
  const std::string marker = std::string("Exif\0\0", 6) + exif(6, true);
  file.insert(2, std::string("\xff\xe1\0", 3) + static_cast<char>(marker.size() + 2) + marker);
  const Image image = read(file, 1);
  ASSERT_EQ(read_image_shape(folder.file("image")), (ImageShape{1, 24, 16}));
  ASSERT_EQ(image.height, 24);
  EXPECT_NEAR(image.pixels[0], 220, 2);
  EXPECT_NEAR(image.pixels[15], 20, 2);
  EXPECT_NEAR(image.pixels[23 * 16], 220, 2);
}

// Wherever it ends, and whatever one byte of it is: an orientation, and nothing outside it is read (the
// sanitizers').
TEST_F(Images, DamagedExifSaysNothing) {
  const std::string good = exif(6, false);
  EXPECT_EQ(exif_orientation(bytes_of(good)), 6);
  EXPECT_EQ(exif_orientation(bytes_of(exif(9, false))), 1);
  EXPECT_EQ(exif_orientation(bytes_of(exif(0, true))), 1);
  for (size_t n = 0; n < 32; ++n) EXPECT_EQ(exif_orientation(bytes_of(good.substr(0, n))), 1) << n;
  for (size_t i = 0; i < good.size(); ++i)
    for (int change : {0x01, 0x80, 0xff}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ change);
      const int orientation = exif_orientation(bytes_of(bad));
      EXPECT_TRUE(orientation >= 1 && orientation <= 8);
    }
}

TEST_F(Images, PngDamagedAnywhereIsRefused) {
  const std::string good = png(9, 7, 8, PNG_COLOR_TYPE_RGB, ramp(9 * 7 * 3));
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] ^= 0x21;
    Image image;
    const auto decode = [&] { image = decode_png("x", bytes_of(bad)); };
    if (i + 4 >= good.size() && !testing::error_of(decode)) {
      // The checksum of the last chunk, which holds nothing: to newer versions of libpng it is odd, no more.
      EXPECT_EQ(image.pixels, decode_png("x", bytes_of(good)).pixels);
      EXPECT_NE(image.remark, "");
      continue;
    }
    expect_error(Exit::data, decode, "file=x");
  }
  for (size_t n = 0; n < good.size(); ++n)
    expect_error(
        Exit::data, [&] { decode_png("x", bytes_of(good.substr(0, n))); }, "file=");
}

// JPEG has no check sum: what is found is a wrong structure. A change within the coded pixels gives other
// pixels.
TEST_F(Images, JpegDamagedAnywhereLoadsOrIsRefused) {
  for (bool progressive : {false, true}) {
    const std::string good = jpeg(20, 17, 3, JCS_RGB, ramp(20 * 17 * 3), progressive);
    int refused = 0;
    for (size_t i = 0; i < good.size(); ++i) {
      std::string bad = good;
      bad[i] ^= 0x41;
      const auto error = testing::error_of([&] { decode_jpeg("x", bytes_of(bad)); });
      EXPECT_TRUE(!error || error->exit() == Exit::data) << error->what();
      refused += error.has_value();
    }
    EXPECT_GT(refused, 0);
    for (size_t n = 0; n + 2 < good.size(); ++n)
      expect_error(
          Exit::data, [&] { decode_jpeg("x", bytes_of(good.substr(0, n))); }, "file=");
  }
}

TEST_F(Images, WhatIsNoImageOrNotThere) {
  expect_error(
      Exit::data, [&] { read("", 1); }, "an empty file");
  expect_error(
      Exit::data, [&] { read("GIF89a", 1); }, "47 49 46", "PNG or JPEG");
  expect_error(
      Exit::no_input, [&] { read_image(folder.file("none.png"), 1); }, folder.file("none.png"));
}

TEST_F(Images, WritesWhatItReads) {
  for (int64_t channels : {1, 3}) {
    const Image image{channels, 5, 4, ramp(static_cast<int>(channels * 20))};
    const std::string path = folder.file("out.png");
    write_png(path, image);
    const Image back = read_image(path, channels);
    EXPECT_EQ(back.pixels, image.pixels);
    EXPECT_EQ(back.height, 5);
    EXPECT_EQ(back.width, 4);
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
  expect_error(
      Exit::cannot_create,
      [&] {
        write_png(folder.file("none/out.png"), {1, 1, 1, {0}});
      },
      folder.file("none"));
}

// A smooth picture of odd size comes back nearly as it was: a step of the coarsest quantisation that quality 75 has for low
// frequencies (16 / 2) spread over a block moves a pixel by a few levels, and chroma is kept for every second pixel.
TEST_F(Images, WritesJpeg) {
  for (int64_t channels : {1, 3}) {
    Image image{channels, 13, 21, {}};
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t y = 0; y < 13; ++y)
        for (int64_t x = 0; x < 21; ++x)
          image.pixels.push_back(static_cast<uint8_t>(40 + 5 * x + 3 * y + 20 * c));
    const std::string bytes = encode_jpeg(image);
    EXPECT_LT(bytes.size(), encode_jpeg(image, 95).size());
    const Image back = read(bytes, channels);
    ASSERT_EQ(back.pixels.size(), image.pixels.size());
    EXPECT_EQ(back.height, 13);
    for (size_t i = 0; i < image.pixels.size(); ++i) EXPECT_NEAR(back.pixels[i], image.pixels[i], 12) << i;
    // What the test's own encoder makes at quality 100.
    Bytes rows;
    for (size_t i = 0; i < 13 * 21; ++i)
      for (size_t c = 0; c < static_cast<size_t>(channels); ++c)
        rows.push_back(image.pixels[c * 13 * 21 + i]);
    EXPECT_EQ(encode_jpeg(image, 100),
              jpeg(21, 13, static_cast<int>(channels), channels == 1 ? JCS_GRAYSCALE : JCS_RGB, rows));
  }
}

class Folders : public Images {
 protected:
  DatasetConfig config(const std::string& split = "training") const {
    DatasetConfig c;
    c.dataset = "image_folder";
    c.path = folder.file("set");
    c.split = split;
    return c;
  }
  static std::string grey(uint8_t v, int side = 2) {
    return png(side, side, 8, PNG_COLOR_TYPE_GRAY, Bytes(static_cast<size_t>(side * side), v));
  }
};

TEST_F(Folders, ClassesAndFilesInTheOrderOfTheirNames) {
  put("set/zebra/1.png", grey(4));
  put("set/cat/b.PNG", grey(2));
  put("set/cat/a.png", grey(1));
  put("set/cat/deeper/c.jpg", jpeg(2, 2, 1, JCS_GRAYSCALE, {3, 3, 3, 3}));
  put("set/.hidden/x.png", grey(9));
  put("set/cat/.DS_Store", "not an image");
  put("set/README", "beside the classes");
  const auto set = load_dataset(config());
  EXPECT_EQ(set->class_names, (std::vector<std::string>{"cat", "zebra"}));
  EXPECT_EQ(set->labels, (std::vector<int32_t>{0, 0, 0, 1}));
  EXPECT_EQ(set->channels, 1);
  EXPECT_EQ(Bytes(set->pixels.begin(), set->pixels.end()),
            (Bytes{1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4}));
  const DatasetShape shape = probe_dataset(config());
  EXPECT_EQ(shape.count, 4);
  EXPECT_EQ(shape.channels, 1);
  EXPECT_EQ(shape.height, 2);
  EXPECT_EQ(shape.classes, 2);
}

TEST_F(Folders, OneColourImageMakesAllThreeChannels) {
  put("set/a/1.png", grey(5));
  put("set/b/1.png", png(2, 2, 8, PNG_COLOR_TYPE_RGB, ramp(12)));
  EXPECT_EQ(probe_dataset(config()).channels, 3);
  const auto set = load_dataset(config());
  EXPECT_EQ(set->channels, 3);
  EXPECT_EQ(Bytes(set->image(0), set->image(1)), Bytes(12, 5));
}

TEST_F(Folders, TrainAndTestHalves) {
  put("set/train/a/1.png", grey(1));
  put("set/train/b/1.png", grey(2));
  put("set/test/a/1.png", grey(3));
  EXPECT_EQ(load_dataset(config())->count(), 2);
  EXPECT_EQ(load_dataset(config("test"))->count(), 1);
  fs::remove_all(folder.file("set/test"));
  expect_error(
      Exit::no_input, [&] { load_dataset(config("test")); }, folder.file("set/test"));
}

TEST_F(Folders, TheOddOneOutIsNamedWithBothSizes) {
  put("set/a/1.png", grey(1));
  put("set/a/2.png", png(5, 4, 8, PNG_COLOR_TYPE_GRAY, ramp(20)));
  put("set/b/1.png", grey(1));
  for (const auto& call :
       {std::function<void()>([&] { load_dataset(config()); }), {[&] { probe_dataset(config()); }}})
    expect_error(Exit::data, call, "file=" + folder.file("set/a/2.png"), "2x2", "4x5",
                 folder.file("set/a/1.png"));
}

TEST_F(Folders, WhatIsWrongWithThem) {
  const auto load = [&] { load_dataset(config()); };
  expect_error(Exit::no_input, load, folder.file("set"));
  put("set/readme", "no class folder");
  expect_error(Exit::no_input, load, folder.file("set"));
  fs::create_directories(folder.file("set/empty"));
  expect_error(Exit::data, load, folder.file("set/empty"));
  put("set/empty/notes.txt", "text");  // no picture: the class is as empty as before
  expect_error(Exit::data, load, folder.file("set/empty"));
  put("set/empty/notes.txt", grey(1).substr(0, 40));
  expect_error(Exit::data, load, "notes.txt");
  put("set/empty/notes.png", "text");
  expect_error(Exit::data, load, "notes.png", "PNG or JPEG");
}

// A header that lies beyond what is looked at first: a JPEG with a long comment before its frame.
TEST_F(Folders, LateFrame) {
  std::string late = jpeg(2, 2, 1, JCS_GRAYSCALE, {3, 3, 3, 3});
  late.insert(2, "\xff\xfe" + std::string("\x40\x02", 2) + std::string(0x4000, 'c'));
  put("set/a/1.jpg", late);
  EXPECT_EQ(probe_dataset(config()).width, 2);
  EXPECT_EQ(load_dataset(config())->count(), 1);
}

}  // namespace
}  // namespace lockstep
