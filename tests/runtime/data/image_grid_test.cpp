// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/image_grid.h"

#include <gtest/gtest.h>

namespace lockstep::testing {
namespace {

TEST(ImageOf, ClipsAndRoundsToEven) {
  // 0 lies half way between 127 and 128; -1/255 and 1/255 are whole.
  const float sample[] = {-1.5F, -1, -1 / 255.0F, 0, 1 / 255.0F, 1, 7};
  EXPECT_EQ(image_of(sample, 1, 1, 7).pixels, (std::vector<uint8_t>{0, 0, 127, 128, 128, 255, 255}));
}

TEST(MakeGrid, PutsThreeImagesInRowsOfTwo) {
  std::vector<Image> images;
  for (uint8_t v = 1; v <= 3; ++v)
    images.push_back({3, 1, 2, {v, v, uint8_t(v + 10), v, uint8_t(v + 20), v}});
  const Image grid = make_grid(images, 2);
  EXPECT_EQ(grid.channels, 3);
  ASSERT_EQ(grid.height, 8);
  ASSERT_EQ(grid.width, 10);
  const auto at = [&](int64_t c, int64_t y, int64_t x) {
    return int{grid.pixels[static_cast<size_t>((c * 8 + y) * 10 + x)]};
  };
  int sum = 0;
  for (const uint8_t v : grid.pixels) sum += v;
  EXPECT_EQ(sum, 6 * 6 + 3 * 30);  // the pictures' pixels, everything else black
  EXPECT_EQ(at(0, 2, 2), 1);
  EXPECT_EQ(at(1, 2, 6), 12);
  EXPECT_EQ(at(2, 2, 7), 2);
  EXPECT_EQ(at(2, 5, 2), 23);
  EXPECT_EQ(at(0, 5, 6), 0);  // no fourth
}

TEST(MakeGrid, NoMoreColumnsThanImages) {
  const std::vector<Image> one(1, Image{1, 2, 2, {1, 2, 3, 4}});
  EXPECT_EQ(make_grid(one, 8).width, 6);
}

}  // namespace
}  // namespace lockstep::testing
