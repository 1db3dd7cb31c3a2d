// PNG and JPEG files, and folders of them.
#include <gtest/gtest.h>
#include <png.h>
#include <zlib.h>

#include <cstdio>
// jpeglib.h needs stdio.h before it.
#include <jpeglib.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "runtime/data/codec.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::read_file;
using testing::TestFolder;
using testing::write_file;

// rows: as the file stores them.
std::string png(int width, int height, int depth, int color, const std::vector<uint8_t>& rows,
                bool interlaced = false, bool transparent = false) {
  std::string out;
  png_structp p = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(p);
  png_set_write_fn(
      p, &out,
      [](png_structp w, png_bytep data, size_t n) {
        static_cast<std::string*>(png_get_io_ptr(w))->append(reinterpret_cast<char*>(data), n);
      },
      nullptr);
  png_set_IHDR(p, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height), depth, color,
               interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  std::array<png_color, 4> palette = {png_color{1, 2, 3}, {40, 50, 60}, {0, 255, 0}, {9, 9, 9}};
  if (color == PNG_COLOR_TYPE_PALETTE) png_set_PLTE(p, info, palette.data(), 4);
  std::array<png_byte, 4> alpha = {255, 255, 0, 255};
  if (transparent) png_set_tRNS(p, info, alpha.data(), 4, nullptr);
  png_write_info(p, info);
  const size_t row = png_get_rowbytes(p, info);
  std::vector<png_bytep> pointers;
  for (int y = 0; y < height; ++y)
    pointers.push_back(const_cast<png_bytep>(rows.data()) + static_cast<size_t>(y) * row);
  png_write_image(p, pointers.data());
  png_write_end(p, nullptr);
  png_destroy_write_struct(&p, &info);
  return out;
}

std::string jpeg(int width, int height, int components, J_COLOR_SPACE space, const std::vector<uint8_t>& rows,
                 bool progressive = false) {
  jpeg_compress_struct c{};
  jpeg_error_mgr errors{};
  c.err = jpeg_std_error(&errors);
  jpeg_create_compress(&c);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&c, &bytes, &size);
  c.image_width = static_cast<JDIMENSION>(width);
  c.image_height = static_cast<JDIMENSION>(height);
  c.input_components = components;
  c.in_color_space = space;
  jpeg_set_defaults(&c);
  jpeg_set_quality(&c, 100, TRUE);
  if (progressive) jpeg_simple_progression(&c);
  jpeg_start_compress(&c, TRUE);
  for (int y = 0; y < height; ++y) {
    JSAMPROW row = const_cast<JSAMPROW>(rows.data()) + static_cast<size_t>(y * width * components);
    jpeg_write_scanlines(&c, &row, 1);
  }
  jpeg_finish_compress(&c);
  std::string out(reinterpret_cast<char*>(bytes), size);
  jpeg_destroy_compress(&c);
  std::free(bytes);
  return out;
}

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
  expect_error(
      Exit::data, [&] { read(jpeg(8, 8, 4, JCS_CMYK, ramp(256)), 3); }, "CMYK", folder.file("image"));
}

TEST_F(Images, PngDamagedAnywhereIsRefused) {
  const std::string good = png(9, 7, 8, PNG_COLOR_TYPE_RGB, ramp(9 * 7 * 3));
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] ^= 0x21;
    expect_error(
        Exit::data, [&] { decode_png("x", bytes_of(bad)); }, "file=x");
  }
  for (size_t n = 0; n < good.size(); ++n)
    expect_error(
        Exit::data, [&] { decode_png("x", bytes_of(good.substr(0, n))); }, "file=");
  expect_error(
      Exit::data, [&] { read(good + "x", 3); }, "1 more bytes");
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

TEST_F(Images, HeadersThatLie) {
  // 60,000 x 60,000 pixels in a hundred bytes: refused before 10 GB are allocated.
  std::string big = png(9, 7, 8, PNG_COLOR_TYPE_RGB, ramp(9 * 7 * 3));
  const std::array<char, 8> sides = {0, 0, static_cast<char>(0xea), 0x60,
                                     0, 0, static_cast<char>(0xea), 0x60};
  big.replace(16, 8, sides.data(), 8);
  const auto sum = crc32(0, reinterpret_cast<const Bytef*>(big.data()) + 12, 17);
  for (int i = 0; i < 4; ++i) big[static_cast<size_t>(29 + i)] = static_cast<char>(sum >> (24 - 8 * i));
  expect_error(
      Exit::data, [&] { read(big, 3); }, "60000x60000");

  std::string wide = jpeg(16, 16, 3, JCS_RGB, ramp(16 * 16 * 3));
  const size_t frame = wide.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  wide.replace(frame + 5, 4, std::string(4, static_cast<char>(0xea)));
  expect_error(
      Exit::data, [&] { read(wide, 3); }, "cannot hold");
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
  put("set/empty/notes.txt", "text");
  expect_error(Exit::data, load, "notes.txt", "PNG or JPEG");
  put("set/empty/notes.txt", grey(1).substr(0, 40));
  expect_error(Exit::data, load, "notes.txt");
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
