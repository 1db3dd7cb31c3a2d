// SPDX-License-Identifier: Apache-2.0
#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "kernels/core/error.h"
#include "runtime/data/codec.h"
#include "runtime/data/exif.h"

namespace lockstep {
namespace {

constexpr uint64_t kMaxPngRatio = 1032;

// Everything that lives across libpng's longjmp; it jumps over C frames only.
struct PngReader {
  std::span<const uint8_t> bytes;
  size_t at = 0;
  char message[256] = "";
  png_structp png = nullptr;
  png_infop info = nullptr;
  ImageShape shape;        // channels as decoded, 1 to 4
  uint64_t raw_bytes = 0;  // of the pixels as the file stores them
  int64_t oddities = 0;
  std::vector<uint8_t> pixels;
  std::vector<png_bytep> rows;

  explicit PngReader(std::span<const uint8_t> b) : bytes(b) {}
  ~PngReader() { png_destroy_read_struct(&png, &info, nullptr); }
  PngReader(const PngReader&) = delete;
};

void on_error(png_structp png, png_const_charp message) {
  auto* reader = static_cast<PngReader*>(png_get_error_ptr(png));
  std::snprintf(reader->message, sizeof reader->message, "%s", message);
  std::longjmp(png_jmpbuf(png), 1);
}
// Odd metadata, bad checksums of chunks without pixels among it; what damages pixels is an error.
void on_warning(png_structp png, png_const_charp message) {
  auto* reader = static_cast<PngReader*>(png_get_error_ptr(png));
  if (reader->oddities++ == 0) std::snprintf(reader->message, sizeof reader->message, "%s", message);
}

void on_read(png_structp png, png_bytep to, size_t n) {
  auto* reader = static_cast<PngReader*>(png_get_io_ptr(png));
  if (n > reader->bytes.size() - reader->at) png_error(png, "the file ends early");
  std::memcpy(to, reader->bytes.data() + reader->at, n);
  reader->at += n;
}

// Up to the first pixel. False: message says why not.
bool start(PngReader& r) {
  r.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &r, on_error, on_warning);
  LOCKSTEP_ASSERT(r.png);
  r.info = png_create_info_struct(r.png);
  LOCKSTEP_ASSERT(r.info);
  if (setjmp(png_jmpbuf(r.png))) return false;
  png_set_read_fn(r.png, &r, on_read);
  png_set_crc_action(r.png, PNG_CRC_ERROR_QUIT, PNG_CRC_WARN_USE);
  png_set_user_limits(r.png, kMaxImageSide, kMaxImageSide);
  png_set_chunk_malloc_max(r.png, 64 << 20);
  png_read_info(r.png, r.info);
  r.raw_bytes = uint64_t{png_get_rowbytes(r.png, r.info)} * png_get_image_height(r.png, r.info);
  png_set_expand(r.png);
  png_set_scale_16(r.png);
  png_set_interlace_handling(r.png);
  png_read_update_info(r.png, r.info);
  r.shape = {png_get_channels(r.png, r.info), png_get_image_height(r.png, r.info),
             png_get_image_width(r.png, r.info)};
  return true;
}

bool read_pixels(PngReader& r) {
  if (setjmp(png_jmpbuf(r.png))) return false;
  png_read_image(r.png, r.rows.data());
  png_read_end(r.png, r.info);
  return true;
}

// By the eXIf chunks that have been read.
int orientation(const PngReader& r) {
  png_bytep exif = nullptr;
  png_uint_32 size = 0;
  return png_get_eXIf_1(r.png, r.info, &size, &exif) ? exif_orientation({exif, size}) : 1;
}

uint32_t big_endian(const uint8_t* b) {
  return uint32_t{b[0]} << 24 | uint32_t{b[1]} << 16 | uint32_t{b[2]} << 8 | uint32_t{b[3]};
}

// By an eXIf chunk anywhere in the file, behind the pixels too, which libpng has not read yet.
int orientation_of_file(const ReadAt& read) {
  constexpr uint32_t kLargest = 1 << 20;  // an orientation stands in the first kilobyte
  for (uint64_t at = 8;;) {
    uint8_t head[8];  // length, type; behind the data a checksum of 4 bytes
    if (read(at, head, 8) < 8) return 1;
    const uint32_t length = big_endian(head);
    if (std::memcmp(head + 4, "IEND", 4) == 0) return 1;  // what lies behind it is none of the picture's
    if (std::memcmp(head + 4, "eXIf", 4) == 0) {
      std::vector<uint8_t> exif(std::min(length, kLargest));
      exif.resize(read(at + 8, exif.data(), exif.size()));
      return exif_orientation(exif);
    }
    at += 12 + uint64_t{length};
  }
}

Error damaged(const std::string& path, const PngReader& r) {
  return Error(Exit::data, "E_IMAGE_PNG", fmt::format("the PNG file is damaged: {}", r.message))
      .at("file", path)
      .at("offset", static_cast<int64_t>(r.at));
}

}  // namespace

ImageShape png_shape(const std::string& path, std::span<const uint8_t> head, const ReadAt& read,
                     int64_t max_pixels) {
  PngReader r(head);
  if (!start(r)) throw damaged(path, r);
  expect_bounded(path, r.shape.height, r.shape.width, r.shape.channels, max_pixels);
  return upright(ImageShape{r.shape.channels <= 2 ? 1 : 3, r.shape.height, r.shape.width},
                 orientation_of_file(read));
}

Image decode_png(const std::string& path, std::span<const uint8_t> bytes, int64_t max_pixels) {
  PngReader r(bytes);
  if (!start(r)) throw damaged(path, r);
  const auto [stored, height, width] = r.shape;
  expect_bounded(path, height, width, stored, max_pixels);
  if (r.raw_bytes > bytes.size() * kMaxPngRatio)
    throw Error(Exit::data, "E_IMAGE_PNG",
                fmt::format("expected {} bytes of pixels for {}x{}, found at most {} in this file",
                            r.raw_bytes, height, width, bytes.size() * kMaxPngRatio))
        .at("file", path);
  const int64_t row = stored * width;
  r.pixels.resize(static_cast<size_t>(row * height));
  for (int64_t y = 0; y < height; ++y) r.rows.push_back(r.pixels.data() + y * row);
  if (!read_pixels(r)) throw damaged(path, r);
  const int64_t channels = stored <= 2 ? 1 : 3;
  const int64_t plane = height * width;
  Image image{channels, height, width, std::vector<uint8_t>(static_cast<size_t>(channels * plane))};
  for (int64_t i = 0; i < plane; ++i) {
    const uint8_t* pixel = r.pixels.data() + i * stored;
    for (int64_t c = 0; c < channels; ++c) image.pixels[static_cast<size_t>(c * plane + i)] = pixel[c];
    if (stored > channels && pixel[channels] != 255)
      throw Error(Exit::data, "E_IMAGE_ALPHA",
                  fmt::format("expected opaque pixels, found alpha {} at row {}, column {}", pixel[channels],
                              i / width, i % width))
          .at("file", path)
          .hint("put the image on a background of your choice first");
  }
  Image picture = upright(std::move(image), orientation(r));
  if (r.oddities > 0)
    picture.remark = remark_of("libpng", r.message, r.oddities);
  else if (r.at != bytes.size())
    picture.remark = fmt::format("{} bytes behind the image", bytes.size() - r.at);
  return picture;
}

}  // namespace lockstep
