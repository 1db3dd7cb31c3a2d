// SPDX-License-Identifier: Apache-2.0
// read_image, encode_png and write_png.
#include <png.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <set>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/data/codec.h"
#include "runtime/data/fit.h"
#include "runtime/data/input_file.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace {

struct CloseFile {
  void operator()(std::FILE* f) const { std::fclose(f); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

File open(const std::string& path) {
  const int descriptor = open_file(path, cannot_read);
  File file(::fdopen(descriptor, "rb"));
  if (!file) ::close(descriptor), throw cannot_read(path, errno);
  return file;
}

// The next `limit` bytes of a file.
std::vector<uint8_t> read_bytes(const std::string& path, std::FILE& file, size_t limit) {
  std::vector<uint8_t> bytes;
  while (bytes.size() < limit) {
    const size_t at = bytes.size();
    bytes.resize(std::min(limit, std::max<size_t>(2 * at, 16384)));
    const size_t got = std::fread(bytes.data() + at, 1, bytes.size() - at, &file);
    const bool end = at + got < bytes.size();
    bytes.resize(at + got);
    if (end && std::ferror(&file)) throw cannot_read(path, errno);
    if (end) break;
  }
  return bytes;
}
std::vector<uint8_t> read_bytes(const std::string& path, size_t limit) {
  return read_bytes(path, *open(path), limit);
}

bool is_png(std::span<const uint8_t> b) {
  constexpr std::array<uint8_t, 8> kSignature = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  return b.size() >= 8 && std::memcmp(b.data(), kSignature.data(), 8) == 0;
}
bool is_jpeg(std::span<const uint8_t> b) {
  return b.size() >= 3 && b[0] == 0xff && b[1] == 0xd8 && b[2] == 0xff;
}

Error neither(const std::string& path, std::span<const uint8_t> b) {
  std::string found;
  for (size_t i = 0; i < std::min<size_t>(8, b.size()); ++i) found += fmt::format("{:02x} ", b[i]);
  return Error(Exit::data, "E_IMAGE_TYPE",
               fmt::format("expected the signature of a PNG or JPEG file, found {}",
                           found.empty() ? "an empty file" : found.substr(0, found.size() - 1)))
      .at("file", path)
      .at("offset", 0);
}

// One image of `plane` pixels a channel, from 1 channel to 3 or from 3 to 1.
void convert_planes(const uint8_t* from, size_t plane, int64_t to_channels, uint8_t* to) {
  if (to_channels == 3) {
    for (size_t c = 0; c < 3; ++c) std::copy_n(from, plane, to + c * plane);
    return;
  }
  for (size_t i = 0; i < plane; ++i)  // BT.601 in 16 bits, as PIL's convert("L") computes it
    to[i] = static_cast<uint8_t>(
        (19595u * from[i] + 38470u * from[plane + i] + 7471u * from[2 * plane + i] + 0x8000u) >> 16);
}

Image converted(Image image, int64_t channels) {
  if (image.channels == channels) return image;
  const auto plane = static_cast<size_t>(image.height * image.width);
  Image out{channels, image.height, image.width, std::vector<uint8_t>(static_cast<size_t>(channels) * plane)};
  convert_planes(image.pixels.data(), plane, channels, out.pixels.data());
  return out;
}

}  // namespace

void expect_bounded(const std::string& path, int64_t height, int64_t width, int64_t bytes_each,
                    int64_t max_pixels) {
  // Sides are at most kMaxImageSide: no overflow.
  const int64_t pixels = height * width;
  if (pixels > max_pixels)
    throw Error(Exit::data, "E_IMAGE_PIXELS",
                fmt::format("expected at most {} pixels, found {}x{}", max_pixels, height, width))
        .at("file", path)
        .hint("max_pixels, beside the data set's path, allows more");
  if (pixels * bytes_each > kMaxDecodedBytes)
    throw Error(Exit::data, "E_IMAGE_PIXELS",
                fmt::format("{}x{} pixels take {} bytes once decoded, more than {}", height, width,
                            pixels * bytes_each, kMaxDecodedBytes))
        .at("file", path);
}

Error out_of_memory(const std::string& path) {
  return Error(Exit::data, "E_IMAGE_MEMORY", "memory ran out while this picture was decoded")
      .at("file", path);
}

std::string remark_of(const char* library, const char* first, int64_t times) {
  return times == 1 ? std::string(first) : fmt::format("{} ({} such remarks of {})", first, times, library);
}

void convert_channels(ImageSet& set, int64_t channels) {
  if (set.channels == channels) return;
  LOCKSTEP_ASSERT((channels == 1 && set.channels == 3) || (channels == 3 && set.channels == 1), "{} to {}",
                  set.channels, channels);
  const int64_t plane = set.height * set.width;
  std::vector<uint8_t> pixels(static_cast<size_t>(set.count() * channels * plane));
  for (int64_t i = 0; i < set.count(); ++i)
    convert_planes(set.image(i), static_cast<size_t>(plane), channels, pixels.data() + i * channels * plane);
  set.pixels = std::move(pixels);
  set.channels = channels;
}

bool looks_like_picture(const std::string& path) {
  static const std::set<std::string, std::less<>> kEndings = {
      "avif", "bmp", "gif", "heic", "heif", "ico", "jfif", "jp2", "jpe",  "jpeg", "jpg",
      "jxl",  "pbm", "pgm", "png",  "pnm",  "ppm", "tga",  "tif", "tiff", "webp"};
  const size_t dot = path.find_last_of("./");
  if (dot != std::string::npos && path[dot] == '.') {
    std::string ending = path.substr(dot + 1);
    for (char& c : ending)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (kEndings.contains(ending)) return true;
  }
  const std::vector<uint8_t> head = read_bytes(path, 8);
  return is_png(head) || is_jpeg(head);
}

ImageShape read_image_shape(const std::string& path, int64_t max_pixels) {
  // Enough for what stands before a PNG's pixels or a JPEG's frame, unless a profile or a preview comes
  // first.
  constexpr size_t kHead = 4096;
  const File file = open(path);
  std::vector<uint8_t> bytes = read_bytes(path, *file, kHead);
  const ReadAt read = [&](uint64_t offset, void* to, size_t n) {
    const bool there = std::fseek(file.get(), static_cast<long>(offset), SEEK_SET) == 0;
    return there ? std::fread(to, 1, n, file.get()) : 0;
  };
  for (bool whole = bytes.size() < kHead;; whole = true, bytes = read_bytes(path, SIZE_MAX)) {
    try {
      if (is_png(bytes)) return png_shape(path, bytes, read, max_pixels);
      if (is_jpeg(bytes)) return jpeg_shape(path, bytes, max_pixels);
    } catch (const Error&) {
      if (whole) throw;
      continue;
    }
    throw neither(path, bytes);
  }
}

Image decode_image(const std::string& path, std::span<const uint8_t> bytes, int64_t channels,
                   const ImageFit& fit, int64_t max_pixels) try {
  LOCKSTEP_ASSERT(channels == 1 || channels == 3, "channels {}", channels);
  if (!is_png(bytes) && !is_jpeg(bytes)) throw neither(path, bytes);
  Image image = is_png(bytes) ? decode_png(path, bytes, max_pixels) : decode_jpeg(path, bytes, max_pixels);
  std::string remark = std::move(image.remark);
  image = fitted(path, converted(std::move(image), channels), fit);
  image.remark = std::move(remark);
  return image;
} catch (const std::bad_alloc&) {
  throw out_of_memory(path);
}

Image read_image(const std::string& path, int64_t channels, const ImageFit& fit, int64_t max_pixels) {
  std::vector<uint8_t> bytes;
  try {
    bytes = read_bytes(path, SIZE_MAX);
  } catch (const std::bad_alloc&) {
    throw out_of_memory(path);
  }
  return decode_image(path, bytes, channels, fit, max_pixels);
}

std::string encode_png(const Image& image) {
  const int64_t channels = image.channels, height = image.height, width = image.width;
  const std::vector<uint8_t>& pixels = image.pixels;
  LOCKSTEP_ASSERT((channels == 1 || channels == 3) && height > 0 && width > 0 &&
                      pixels.size() == static_cast<size_t>(channels * height * width),
                  "[{}, {}, {}] of {} bytes", channels, height, width, pixels.size());
  std::vector<uint8_t> rows(pixels.size());  // [height, width, channels]
  const int64_t plane = height * width;
  for (int64_t i = 0; i < plane; ++i)
    for (int64_t c = 0; c < channels; ++c)
      rows[static_cast<size_t>(i * channels + c)] = pixels[static_cast<size_t>(c * plane + i)];
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(width);
  png.height = static_cast<png_uint_32>(height);
  png.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::string encoded(size, '\0');
  LOCKSTEP_ASSERT(png_image_write_to_memory(&png, encoded.data(), &size, 0, rows.data(), 0, nullptr), "{}",
                  png.message);
  encoded.resize(size);
  return encoded;
}

void write_png(const std::string& path, const Image& image) {
  write_file_atomically(path, encode_png(image));
}

}  // namespace lockstep
