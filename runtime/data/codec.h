// SPDX-License-Identifier: Apache-2.0
// One encoded image in memory. The format is told by its signature, never by a file's name.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "runtime/data/dataset.h"

namespace lockstep {

struct ImageShape {
  // What decoding will give, upright; channels: 1 grey, 3 colour.
  int64_t channels = 0, height = 0, width = 0;
  bool operator==(const ImageShape&) const = default;
};

inline constexpr int64_t kMaxImageSide = 65500;  // libjpeg's own

// The most that a picture may take once decoded, whatever the limit on its pixels: what a small file can claim must not
// take the machine down. Checked against the header, before memory is taken.
inline constexpr int64_t kMaxDecodedBytes = int64_t{1} << 30;

// Error data (65) where height x width exceeds max_pixels, or as many values of `bytes_each` the most that is decoded.
void expect_bounded(const std::string& path, int64_t height, int64_t width, int64_t bytes_each,
                    int64_t max_pixels);
// Error data (65): memory ran out while this file was decoded.
Error out_of_memory(const std::string& path);

// What a library found odd about a file, so many times; the first of it.
std::string remark_of(const char* library, const char* first, int64_t times);

// Up to n bytes of the file from this offset on; how many there were.
using ReadAt = std::function<size_t(uint64_t offset, void* to, size_t n)>;

// path only names the file in errors, all data (65). A shape needs the file's head alone, and of a PNG the chunks' heads,
// since its EXIF may stand behind the pixels.
ImageShape png_shape(const std::string& path, std::span<const uint8_t> head, const ReadAt& read,
                     int64_t max_pixels = kMaxPixels);
Image decode_png(const std::string& path, std::span<const uint8_t> bytes, int64_t max_pixels = kMaxPixels);
ImageShape jpeg_shape(const std::string& path, std::span<const uint8_t> head,
                      int64_t max_pixels = kMaxPixels);
Image decode_jpeg(const std::string& path, std::span<const uint8_t> bytes, int64_t max_pixels = kMaxPixels);

// Either format, from its file, as its EXIF orientation turns it.
ImageShape read_image_shape(const std::string& path, int64_t max_pixels = kMaxPixels);

// Every image in so many channels, as read_image converts them.
void convert_channels(ImageSet& set, int64_t channels);

// Whether a file is meant to be a picture: by the ending of its name (formats that we don't read too, so that they are
// refused instead of passed over), or else by its signature.
bool looks_like_picture(const std::string& path);

}  // namespace lockstep
