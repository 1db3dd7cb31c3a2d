// SPDX-License-Identifier: Apache-2.0
// Pictures that any small model tells apart.
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <string>
#include <vector>

#include "runtime/data/dataset.h"

namespace lockstep::testing {

// A folder per class with two pictures of that class's colour, and two more of each for the test.
inline void write_colours(const std::string& folder, const std::vector<std::string>& classes,
                          int64_t side = 4) {
  for (const char* half : {"train", "test"})
    for (size_t c = 0; c < classes.size(); ++c)
      for (int i = 0; i < 2; ++i) {
        const std::string path = fmt::format("{}/{}/{}", folder, half, classes[c]);
        std::filesystem::create_directories(path);
        Image image{3, side, side, std::vector<uint8_t>(static_cast<size_t>(3 * side * side), 20)};
        for (int64_t p = 0; p < side * side; ++p)
          image.pixels[c % 3 * static_cast<size_t>(side * side) + static_cast<size_t>(p)] =
              static_cast<uint8_t>(200 + 10 * i);
        write_png(fmt::format("{}/{}.png", path, i), image);
      }
}

}  // namespace lockstep::testing
