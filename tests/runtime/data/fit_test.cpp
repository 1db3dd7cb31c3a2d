// SPDX-License-Identifier: Apache-2.0
// Resizing and cropping against Pillow and torchvision: tests/golden/make_resize.py.
#include "runtime/data/fit.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/files.h"

namespace lockstep {
namespace {

using nlohmann::json;
using testing::expect_error;

Image picture(int64_t channels, int64_t height, int64_t width) {
  Image image{channels, height, width, {}};
  for (uint32_t i = 0; i < channels * height * width; ++i)
    image.pixels.push_back(static_cast<uint8_t>(i * 2654435761u >> 24));
  return image;
}

Extent extent(const json& j) {
  if (j.is_null()) return {};
  return j.is_array() ? Extent{j[0].get<int64_t>(), j[1].get<int64_t>()} : Extent{j.get<int64_t>(), 0};
}

TEST(Fit, EqualsPillowToTheBit) {
  const json file = json::parse(testing::read_file(LOCKSTEP_SOURCE_DIR "/tests/golden/resize.json"));
  ASSERT_GE(file.at("cases").size(), 11u);
  for (const json& c : file.at("cases")) {
    const auto shape = c.at("shape").get<std::vector<int64_t>>();
    const ImageFit fit{extent(c.at("resize")), extent(c.at("crop"))};
    SCOPED_TRACE(c.at("shape").dump() + " " + fit.text());
    const Image out = fitted("x", picture(shape[0], shape[1], shape[2]), fit);
    EXPECT_EQ((std::vector<int64_t>{out.channels, out.height, out.width}),
              c.at("size").get<std::vector<int64_t>>());
    EXPECT_EQ(out.pixels, c.at("bytes").get<std::vector<uint8_t>>());
    EXPECT_EQ(fitted("x", ImageShape{shape[0], shape[1], shape[2]}, fit),
              (ImageShape{out.channels, out.height, out.width}));
  }
}

TEST(Fit, OneColourStaysAndNothingAskedForChangesNothing) {
  const Image grey{1, 7, 9, std::vector<uint8_t>(63, 201)};
  for (const Extent& to : {Extent{3, 4}, {20, 31}, {1, 1}, {5, 0}})
    for (uint8_t p : fitted("x", grey, {to, {}}).pixels) ASSERT_EQ(p, 201);
  EXPECT_EQ(fitted("x", picture(3, 4, 5), {}).pixels, picture(3, 4, 5).pixels);
}

TEST(Fit, TheMiddleOfASetIsThatOfItsPictures) {
  ImageSet set;
  set.channels = 2, set.height = 7, set.width = 10, set.classes = 3;
  set.class_names = {"a", "b", "c"};
  for (int32_t label : {2, 0, 1}) {
    set.labels.push_back(label);
    for (int64_t i = 0; i < set.sample_bytes(); ++i)
      set.pixels.push_back(static_cast<uint8_t>(91 * label + i));
  }
  for (const auto& subset : {std::vector<int64_t>{}, {2, 0}}) {
    const auto middle = middle_of("set", set, {4, 5}, subset);
    ASSERT_EQ(middle->count(), subset.empty() ? 3 : 2);
    EXPECT_EQ(middle->classes, 3);
    EXPECT_EQ(middle->class_names, set.class_names);
    for (int64_t n = 0; n < middle->count(); ++n) {
      const int64_t i = subset.empty() ? n : subset[static_cast<size_t>(n)];
      EXPECT_EQ(middle->labels[static_cast<size_t>(n)], set.labels[static_cast<size_t>(i)]);
      const Image whole{2, 7, 10, {set.image(i), set.image(i) + set.sample_bytes()}};
      const Image cut = fitted("x", whole, {{}, {4, 5}});
      EXPECT_EQ(std::vector<uint8_t>(middle->image(n), middle->image(n) + middle->sample_bytes()),
                cut.pixels);
    }
  }
  expect_error(
      Exit::data,
      [&] {
        middle_of("set", set, {8, 5});
      },
      "file=set", "at least 8x5", "found 7x10");
}

TEST(Fit, SidesThatCannotBe) {
  const auto fits = [](int64_t height, int64_t width, const ImageFit& fit) {
    return [=] { fitted("a.png", ImageShape{1, height, width}, fit); };
  };
  expect_error(Exit::data, fits(20, 30, {{}, {21, 0}}), "file=a.png", "at least 21x21", "found 20x30");
  expect_error(Exit::data, fits(20, 30, {{10, 0}, {10, 16}}), "at least 10x16", "found 10x15");
  // A line of one pixel, made 224 wide, would be 224 x 14 million.
  expect_error(Exit::data, fits(1, 65000, {{224, 0}, {}}), "file=a.png", "14560000");
}

}  // namespace
}  // namespace lockstep
