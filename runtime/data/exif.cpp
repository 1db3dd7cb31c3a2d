// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/exif.h"

#include <optional>
#include <utility>

namespace lockstep {
namespace {

constexpr uint16_t kOrientation = 0x0112;

// Bytes of a TIFF type that holds whole numbers (TIFF 6.0, section 2); 0 of any other. EXIF wants a SHORT, writers take
// others.
size_t bytes_of_integer(uint32_t type) {
  switch (type) {
    case 1:  // BYTE
    case 6:  // SBYTE
      return 1;
    case 3:  // SHORT
    case 8:  // SSHORT
      return 2;
    case 4:  // LONG
    case 9:  // SLONG
      return 4;
  }
  return 0;
}

struct Tiff {
  std::span<const uint8_t> bytes;
  bool big_endian = false;

  std::optional<uint32_t> number(size_t at, size_t length) const {
    if (at > bytes.size() || length > bytes.size() - at) return std::nullopt;
    uint32_t value = 0;
    for (size_t i = 0; i < length; ++i) value = value << 8 | bytes[at + (big_endian ? i : length - 1 - i)];
    return value;
  }
};

bool swaps_sides(int orientation) { return orientation >= 5; }

}  // namespace

int exif_orientation(std::span<const uint8_t> bytes) {
  Tiff tiff{bytes};
  const auto order = tiff.number(0, 2);
  tiff.big_endian = order == 0x4D4Du;  // "MM"; else "II"
  if ((order != 0x4D4Du && order != 0x4949u) || tiff.number(2, 2) != 42u) return 1;
  const auto directory = tiff.number(4, 4);
  if (!directory) return 1;
  const uint32_t entries = tiff.number(*directory, 2).value_or(0);
  for (uint32_t i = 0; i < entries; ++i) {
    const size_t entry = size_t{*directory} + 2 + 12 * size_t{i};  // tag, type, count, value
    const size_t length = bytes_of_integer(tiff.number(entry + 2, 2).value_or(0));
    if (tiff.number(entry, 2) != kOrientation || length == 0) continue;
    const uint32_t value = tiff.number(entry + 8, length).value_or(0);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

ImageShape upright(const ImageShape& shape, int orientation) {
  ImageShape s = shape;
  if (swaps_sides(orientation)) std::swap(s.height, s.width);
  return s;
}

Image upright(Image image, int orientation) {
  if (orientation == 1) return image;
  const bool swap = swaps_sides(orientation);
  // In the picture as stored, after the sides are swapped.
  const bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const int64_t height = image.height, width = image.width;
  Image out{image.channels, swap ? width : height, swap ? height : width, {}};
  out.pixels.resize(image.pixels.size());
  uint8_t* to = out.pixels.data();
  for (int64_t c = 0; c < image.channels; ++c)
    for (int64_t y = 0; y < out.height; ++y)
      for (int64_t x = 0; x < out.width; ++x) {
        int64_t row = swap ? x : y, column = swap ? y : x;
        if (from_below) row = height - 1 - row;
        if (from_right) column = width - 1 - column;
        *to++ = image.pixels[static_cast<size_t>((c * height + row) * width + column)];
      }
  return out;
}

}  // namespace lockstep
