// SPDX-License-Identifier: Apache-2.0
// Small sets of square grey images, one value an image, as IDX files.
#pragma once

#include <string>
#include <vector>

#include "tests/support/files.h"

namespace lockstep::testing {

inline std::string big_endian_u32(uint32_t x) {
  return {static_cast<char>(x >> 24), static_cast<char>(x >> 16), static_cast<char>(x >> 8),
          static_cast<char>(x)};
}

struct GreyImage {
  uint8_t value, label;
};

// PREFIX-images-idx3-ubyte and PREFIX-labels-idx1-ubyte; images of side x side.
inline void write_idx(const std::string& prefix, uint32_t side, const std::vector<GreyImage>& set) {
  const std::string count = big_endian_u32(static_cast<uint32_t>(set.size()));
  std::string images = big_endian_u32(0x803) + count + big_endian_u32(side) + big_endian_u32(side);
  std::string labels = big_endian_u32(0x801) + count;
  for (const GreyImage& image : set) {
    images.append(size_t{side} * side, static_cast<char>(image.value));
    labels += static_cast<char>(image.label);
  }
  write_file(prefix + "-images-idx3-ubyte", images);
  write_file(prefix + "-labels-idx1-ubyte", labels);
}

}  // namespace lockstep::testing
