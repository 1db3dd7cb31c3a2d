// SPDX-License-Identifier: Apache-2.0
// read_image, encode_png and write_png.
#include <png.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/data/codec.h"
#include "runtime/data/fit.h"
#include "runtime/data/input_file.h"

namespace lockstep {
namespace {

struct CloseFile {
  void operator()(std::FILE* f) const { std::fclose(f); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

// The first `limit` bytes of a file.
std::vector<uint8_t> read_bytes(const std::string& path, size_t limit) {
  const File file(std::fopen(path.c_str(), "rbe"));
  if (!file) throw cannot_read(path, errno);
  std::vector<uint8_t> bytes;
  while (bytes.size() < limit) {
    const size_t at = bytes.size();
    bytes.resize(std::min(limit, std::max<size_t>(2 * at, 16384)));
    const size_t got = std::fread(bytes.data() + at, 1, bytes.size() - at, file.get());
    const bool end = at + got < bytes.size();
    bytes.resize(at + got);
    if (end && std::ferror(file.get())) throw cannot_read(path, errno);
    if (end) break;
  }
  return bytes;
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

Image converted(Image image, int64_t channels) {
  if (image.channels == channels) return image;
  const auto plane = static_cast<size_t>(image.height * image.width);
  Image out{channels, image.height, image.width, std::vector<uint8_t>(static_cast<size_t>(channels) * plane)};
  const uint8_t* p = image.pixels.data();
  for (size_t i = 0; i < plane; ++i) {
    if (channels == 3)
      for (size_t c = 0; c < 3; ++c) out.pixels[c * plane + i] = p[i];
    else  // BT.601 in 16 bits, as PIL's convert("L") computes it
      out.pixels[i] = static_cast<uint8_t>(
          (19595u * p[i] + 38470u * p[plane + i] + 7471u * p[2 * plane + i] + 0x8000u) >> 16);
  }
  return out;
}

}  // namespace

ImageShape read_image_shape(const std::string& path) {
  // Enough for what stands before a PNG's pixels or a JPEG's frame, unless a profile or a preview comes
  // first.
  constexpr size_t kHead = 4096;
  std::vector<uint8_t> bytes = read_bytes(path, kHead);
  for (bool whole = bytes.size() < kHead;; whole = true, bytes = read_bytes(path, SIZE_MAX)) {
    try {
      if (is_png(bytes)) return png_shape(path, bytes);
      if (is_jpeg(bytes)) return jpeg_shape(path, bytes);
    } catch (const Error&) {
      if (whole) throw;
      continue;
    }
    throw neither(path, bytes);
  }
}

Image read_image(const std::string& path, int64_t channels, const Fit& fit) {
  LOCKSTEP_ASSERT(channels == 1 || channels == 3, "channels {}", channels);
  const std::vector<uint8_t> bytes = read_bytes(path, SIZE_MAX);
  if (!is_png(bytes) && !is_jpeg(bytes)) throw neither(path, bytes);
  Image image = is_png(bytes) ? decode_png(path, bytes) : decode_jpeg(path, bytes);
  return fitted(path, converted(std::move(image), channels), fit);
}

std::string encode_png(const Image& image) {
  const auto [channels, height, width, pixels] = image;
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
