// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/captioned_digits.h"

#include <algorithm>

#include "runtime/data/digit_caption.h"
#include "runtime/data/hash.h"

namespace lockstep {
namespace {

constexpr int kScenesVersion = 3;  // another one for other pixels or captions of the same seed

}  // namespace

void expect_mnist_shape(const std::string& path, int64_t height, int64_t width) {
  if (height == kDigitSide && width == kDigitSide) return;
  throw Error(
      Exit::data, "E_DATA_SHAPE",
      fmt::format("captioned_digits are made of digits of {0}x{0}, found {1}x{2}", kDigitSide, height, width))
      .at("file", path);
}

CaptionedDigits::CaptionedDigits(ImageSet mnist, const std::string& split, uint64_t seed,
                                 const std::string& path)
    : mnist_(std::move(mnist)),
      seed_(split == "test" ? kTestScenes : seed),
      pairs_(split == "test" ? ScenePairs::all : ScenePairs::seen) {
  expect_mnist_shape(path, mnist_.height, mnist_.width);
  channels = 3, height = width = kSceneSide;
  classes = mnist_.classes;
  class_names = mnist_.class_names;
  const std::string content =
      fmt::format("lockstep captioned digits {} {} {} {}", kScenesVersion, split, seed_, mnist_.content_hash);
  content_hash = sha256_hex(std::as_bytes(std::span(content)));
}

void CaptionedDigits::copy_pixels(int64_t epoch, int64_t i, uint8_t* pixels) const {
  draw_scene(scene(epoch, i), {mnist_.image(i), static_cast<size_t>(kDigitBytes)},
             {pixels, static_cast<size_t>(kSceneBytes)});
}

std::vector<std::string> CaptionedDigits::captions_of(int64_t epoch, int64_t i) const {
  const DigitScene shown = scene(epoch, i);
  const bool plain = pairs_ == ScenePairs::seen && epoch < kPlainEpochs;
  return {plain ? prompt_of_scene(shown) : caption_of_scene(shown, seed_, epoch, i)};
}

}  // namespace lockstep
