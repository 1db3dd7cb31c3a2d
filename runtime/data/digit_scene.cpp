// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/digit_scene.h"

#include <algorithm>

#include "kernels/core/error.h"
#include "kernels/random/philox.h"
#include "runtime/data/fit.h"

namespace lockstep {
namespace {

constexpr uint8_t kFaintest = 64;  // of a pixel that belongs to the digit's box

// One of n, uniform to n / 2^32.
int pick(uint32_t word, int n) { return static_cast<int>(uint64_t{word} * static_cast<uint64_t>(n) >> 32); }

// The digit's box, scaled so that its longer side is `side`, its brightest pixel 255. Empty without a digit.
Image scaled_digit(std::span<const uint8_t> mnist, int64_t side) {
  int64_t top = kDigitSide, bottom = -1, left = kDigitSide, right = -1;
  for (int64_t y = 0; y < kDigitSide; ++y)
    for (int64_t x = 0; x < kDigitSide; ++x)
      if (mnist[static_cast<size_t>(y * kDigitSide + x)] >= kFaintest) {
        top = std::min(top, y), bottom = std::max(bottom, y);
        left = std::min(left, x), right = std::max(right, x);
      }
  if (bottom < 0) return {};
  Image box{1, bottom - top + 1, right - left + 1, {}};
  for (int64_t y = top; y <= bottom; ++y) {
    const uint8_t* row = mnist.data() + y * kDigitSide;
    box.pixels.insert(box.pixels.end(), row + left, row + right + 1);
  }
  const int64_t longer = std::max(box.height, box.width);
  const auto scaled = [&](int64_t n) { return std::max<int64_t>(1, (2 * n * side + longer) / (2 * longer)); };
  Image digit = resized(box, scaled(box.height), scaled(box.width));
  const int brightest = *std::max_element(digit.pixels.begin(), digit.pixels.end());
  for (uint8_t& p : digit.pixels) p = static_cast<uint8_t>((p * 255 + brightest / 2) / brightest);
  return digit;
}

}  // namespace

const char* name_of(DigitPlace place) {
  static constexpr const char* kNames[] = {"centre", "top_left", "top_right", "bottom_left", "bottom_right"};
  return kNames[static_cast<int>(place)];
}

const char* name_of(DigitSize size) { return size == DigitSize::small ? "small" : "large"; }

int64_t side_of(DigitSize size) { return size == DigitSize::small ? 14 : 20; }

ScenePoint middle_at(DigitPlace place, DigitSize size) {
  // A pixel of paper is left between the digit and the edge.
  const int64_t near = 1 + side_of(size) / 2, far = kSceneSide - near;
  switch (place) {
    case DigitPlace::centre:
      break;
    case DigitPlace::top_left:
      return {near, near};
    case DigitPlace::top_right:
      return {far, near};
    case DigitPlace::bottom_left:
      return {near, far};
    case DigitPlace::bottom_right:
      return {far, far};
  }
  return {kSceneSide / 2, kSceneSide / 2};
}

bool is_held_out_digit(int digit, int ink) { return digit == (3 * ink + 1) % 10; }

bool is_held_out_paper(int ink, int paper) { return ink < 6 && paper == (ink + 3) % kPapers; }

DigitScene scene_of(uint64_t seed, int64_t epoch, int64_t sample, int digit, ScenePairs pairs) {
  std::array<DigitScene, kInks * kPapers> candidates;
  int count = 0;
  for (int ink = 0; ink < kInks; ++ink)
    for (int paper = 0; paper < kPapers; ++paper) {
      const DigitScene s{digit, ink, paper};
      if (ink != paper && (pairs == ScenePairs::all || is_held_out(s) == (pairs == ScenePairs::held_out)))
        candidates[static_cast<size_t>(count++)] = s;
    }
  const Philox4 draw = random4(seed, stream::kScene, epoch, sample, 0);
  DigitScene scene = candidates[static_cast<size_t>(pick(draw.x[0], count))];
  scene.place = static_cast<DigitPlace>(pick(draw.x[1], kPlaces));
  scene.size = static_cast<DigitSize>(pick(draw.x[2], kSizes));
  return scene;
}

void draw_scene(const DigitScene& scene, std::span<const uint8_t> mnist, std::span<uint8_t> picture) {
  LOCKSTEP_ASSERT(std::ssize(mnist) == kDigitBytes && std::ssize(picture) == kSceneBytes);
  const auto& ink = kColours[static_cast<size_t>(scene.ink)];
  const auto& paper = kColours[static_cast<size_t>(scene.paper)];
  constexpr int64_t kPlane = kSceneSide * kSceneSide;
  for (size_t c = 0; c < 3; ++c)
    std::fill_n(picture.data() + static_cast<int64_t>(c) * kPlane, kPlane, paper[c]);
  const Image digit = scaled_digit(mnist, side_of(scene.size));
  const ScenePoint middle = middle_at(scene.place, scene.size);
  const int64_t top = middle.y - digit.height / 2, left = middle.x - digit.width / 2;
  for (int64_t y = 0; y < digit.height; ++y)
    for (int64_t x = 0; x < digit.width; ++x) {
      const int grey = digit.pixels[static_cast<size_t>(y * digit.width + x)];
      for (size_t c = 0; c < 3; ++c)
        picture[c * kPlane + static_cast<size_t>((top + y) * kSceneSide + left + x)] =
            static_cast<uint8_t>((grey * ink[c] + (255 - grey) * paper[c] + 127) / 255);
    }
}

}  // namespace lockstep
