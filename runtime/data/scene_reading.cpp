// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/scene_reading.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/core/error.h"
#include "runtime/data/fit.h"

namespace lockstep {
namespace {

constexpr auto kScenePixels = static_cast<size_t>(kSceneSide * kSceneSide);
constexpr float kVisible = 40;    // the least distance of an ink from its paper; colours are 117 apart
constexpr float kCore = 0.8F;     // of the full distance: all ink
constexpr float kEdge = 0.25F;    // a pixel of the digit's box, as draw_scene() counts them
constexpr int64_t kBoxSide = 20;  // of MNIST's digits

using Colour = std::array<float, 3>;

float distance(const Colour& a, const Colour& b) { return std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]); }

float median(std::vector<float> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Of the pixels that `takes` takes, at least one, each channel by itself.
template <class Takes>
Colour median_colour(const std::vector<Colour>& pixels, Takes takes) {
  Colour out;
  for (size_t c = 0; c < 3; ++c) {
    std::vector<float> values;
    for (size_t i = 0; i < pixels.size(); ++i)
      if (takes(i)) values.push_back(pixels[i][c]);
    out[c] = median(std::move(values));
  }
  return out;
}

int nearest_colour(const Colour& colour, int count) {
  const auto away = [&](int k) {
    const auto& c = kColours[static_cast<size_t>(k)];
    return distance(colour, {float(c[0]), float(c[1]), float(c[2])});
  };
  int best = 0;
  for (int k = 1; k < count; ++k)
    if (away(k) < away(best)) best = k;
  return best;
}

struct Box {
  int64_t top = kSceneSide, bottom = 0, left = kSceneSide, right = 0;  // the last of each is outside
  int64_t height() const { return bottom - top; }
  int64_t width() const { return right - left; }
  int64_t longer() const { return std::max(height(), width()); }
};

// As MNIST was made: box to 20 pixels, centre of mass to the middle.
std::array<uint8_t, kDigitBytes> as_mnist(const std::vector<float>& share, const Box& box) {
  Image cut{1, box.height(), box.width(), {}};
  for (int64_t y = box.top; y < box.bottom; ++y)
    for (int64_t x = box.left; x < box.right; ++x)
      cut.pixels.push_back(static_cast<uint8_t>(
          std::lround(255 * std::clamp(share[static_cast<size_t>(y * kSceneSide + x)], 0.0F, 1.0F))));
  const auto scaled = [&](int64_t n) {
    return std::max<int64_t>(1, (2 * n * kBoxSide + box.longer()) / (2 * box.longer()));
  };
  const Image digit = resized(cut, scaled(box.height()), scaled(box.width()));
  double mass = 0, mean_y = 0, mean_x = 0;
  for (int64_t y = 0; y < digit.height; ++y)
    for (int64_t x = 0; x < digit.width; ++x) {
      const double grey = digit.pixels[static_cast<size_t>(y * digit.width + x)];
      mass += grey, mean_y += grey * static_cast<double>(y), mean_x += grey * static_cast<double>(x);
    }
  const auto begin = [&](double mean, int64_t side) {
    const double middle = (kDigitSide - 1) / 2.0;
    return std::clamp<int64_t>(std::lround(middle - mean / mass), 0, kDigitSide - side);
  };
  const int64_t top = begin(mean_y, digit.height), left = begin(mean_x, digit.width);
  std::array<uint8_t, kDigitBytes> out{};
  for (int64_t y = 0; y < digit.height; ++y)
    std::copy_n(digit.pixels.data() + y * digit.width, digit.width,
                out.data() + (top + y) * kDigitSide + left);
  return out;
}

}  // namespace

SceneReading read_scene(std::span<const uint8_t> picture) {
  LOCKSTEP_ASSERT(std::ssize(picture) == kSceneBytes);
  std::vector<Colour> pixels(kScenePixels);
  for (size_t i = 0; i < kScenePixels; ++i)
    for (size_t c = 0; c < 3; ++c) pixels[i][c] = picture[c * kScenePixels + i];
  const Colour paper = median_colour(pixels, [](size_t i) {
    const auto y = static_cast<int64_t>(i) / kSceneSide, x = static_cast<int64_t>(i) % kSceneSide;
    return y == 0 || x == 0 || y == kSceneSide - 1 || x == kSceneSide - 1;
  });
  SceneReading reading;
  reading.paper = nearest_colour(paper, kPapers);

  std::vector<float> away(kScenePixels);
  std::transform(pixels.begin(), pixels.end(), away.begin(),
                 [&](const Colour& p) { return distance(p, paper); });
  const float most = *std::max_element(away.begin(), away.end());
  if (most < kVisible) return reading;
  reading.found = true;
  const Colour ink = median_colour(pixels, [&](size_t i) { return away[i] >= kCore * most; });
  reading.ink = nearest_colour(ink, kInks);

  // How far on the way from paper to ink each pixel is.
  const float length = distance(ink, paper);
  std::vector<float> share(kScenePixels);
  for (size_t i = 0; i < kScenePixels; ++i)
    for (size_t c = 0; c < 3; ++c)
      share[i] += (pixels[i][c] - paper[c]) * (ink[c] - paper[c]) / (length * length);
  Box box;
  for (int64_t y = 0; y < kSceneSide; ++y)
    for (int64_t x = 0; x < kSceneSide; ++x)
      if (share[static_cast<size_t>(y * kSceneSide + x)] >= kEdge) {
        box.top = std::min(box.top, y), box.bottom = std::max(box.bottom, y + 1);
        box.left = std::min(box.left, x), box.right = std::max(box.right, x + 1);
      }
  const int64_t between = side_of(DigitSize::small) + side_of(DigitSize::large);
  reading.size = 2 * box.longer() < between ? DigitSize::small : DigitSize::large;
  double nearest = 1e9;
  for (int k = 0; k < kPlaces; ++k) {
    const auto place = static_cast<DigitPlace>(k);
    const ScenePoint middle = middle_at(place, reading.size);
    const double off =
        std::hypot(static_cast<double>(box.left + box.right) / 2 - static_cast<double>(middle.x),
                   static_cast<double>(box.top + box.bottom) / 2 - static_cast<double>(middle.y));
    if (off < nearest) nearest = off, reading.place = place;
  }
  reading.digit = as_mnist(share, box);
  return reading;
}

}  // namespace lockstep
