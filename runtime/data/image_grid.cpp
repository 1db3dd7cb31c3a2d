// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/image_grid.h"

#include <algorithm>
#include <cmath>

namespace lockstep {

Image image_of(std::span<const float> sample, int64_t channels, int64_t height, int64_t width) {
  LOCKSTEP_ASSERT(static_cast<int64_t>(sample.size()) == channels * height * width);
  Image image{channels, height, width, {}};
  image.pixels.reserve(sample.size());
  for (const float x : sample)
    image.pixels.push_back(static_cast<uint8_t>(std::nearbyint(std::clamp(x / 2 + 0.5F, 0.0F, 1.0F) * 255)));
  return image;
}

Image make_grid(std::span<const Image> images, int64_t columns) {
  constexpr int64_t kGap = 2;
  LOCKSTEP_ASSERT(!images.empty() && columns > 0);
  const auto count = static_cast<int64_t>(images.size());
  const Image& first = images.front();
  const int64_t channels = first.channels, height = first.height, width = first.width;
  columns = std::min(columns, count);
  const int64_t rows = (count + columns - 1) / columns;
  Image grid{channels, kGap + rows * (height + kGap), kGap + columns * (width + kGap), {}};
  grid.pixels.resize(static_cast<size_t>(channels * grid.height * grid.width));
  for (int64_t i = 0; i < count; ++i) {
    const Image& image = images[static_cast<size_t>(i)];
    LOCKSTEP_ASSERT(image.channels == channels && image.height == height && image.width == width);
    const int64_t top = kGap + i / columns * (height + kGap), left = kGap + i % columns * (width + kGap);
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t y = 0; y < height; ++y)
        std::copy_n(image.pixels.data() + (c * height + y) * width, width,
                    grid.pixels.data() + (c * grid.height + top + y) * grid.width + left);
  }
  return grid;
}

}  // namespace lockstep
