// SPDX-License-Identifier: Apache-2.0
// One encoded image in memory. The format is told by its signature, never by a file's name.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "runtime/data/dataset.h"

namespace lockstep {

struct ImageShape {
  int64_t channels = 0, height = 0,
          width = 0;  // channels: 1 grey, 3 colour; what decoding will give, upright
  bool operator==(const ImageShape&) const = default;
};

inline constexpr int64_t kMaxImageSide = 65500;  // libjpeg's own

// path only names the file in errors, all data (65).
ImageShape png_shape(const std::string& path, std::span<const uint8_t> bytes);
Image decode_png(const std::string& path, std::span<const uint8_t> bytes);
ImageShape jpeg_shape(const std::string& path, std::span<const uint8_t> bytes);
Image decode_jpeg(const std::string& path, std::span<const uint8_t> bytes);

// Either format, from its file, as its EXIF orientation turns it.
ImageShape read_image_shape(const std::string& path);

}  // namespace lockstep
