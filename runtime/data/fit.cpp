// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/fit.h"

#include <algorithm>
#include <cmath>

namespace lockstep {
namespace {

constexpr int kFractionBits = 22;

// One side's new pixels: each the weighted sum of `count` stored ones from `first` on.
struct Taps {
  struct Pixel {
    int64_t first, count, weights;  // weights: where they begin
  };
  std::vector<Pixel> pixels;
  std::vector<int32_t> weights;

  Taps(int64_t from, int64_t to) {
    const double scale = static_cast<double>(from) / static_cast<double>(to), half = std::max(scale, 1.0);
    std::vector<double> w;
    // Rounded as Pillow rounds, whose bits these are.
    // NOLINTBEGIN(bugprone-incorrect-roundings)
    for (int64_t i = 0; i < to; ++i) {
      const double centre = (static_cast<double>(i) + 0.5) * scale;
      const int64_t first = std::max<int64_t>(0, static_cast<int64_t>(centre - half + 0.5));
      const int64_t last = std::min(from, static_cast<int64_t>(centre + half + 0.5));
      w.clear();
      double sum = 0;
      for (int64_t k = first; k < last; ++k) {
        w.push_back(std::max(0.0, 1 - std::abs((static_cast<double>(k) - centre + 0.5) * (1 / half))));
        sum += w.back();
      }
      pixels.push_back({first, last - first, static_cast<int64_t>(weights.size())});
      for (double v : w) weights.push_back(static_cast<int32_t>(0.5 + v / sum * (1 << kFractionBits)));
    }
    // NOLINTEND(bugprone-incorrect-roundings)
  }

  // from and to: pixels `stride` apart.
  void apply(const uint8_t* from, uint8_t* to, int64_t stride) const {
    for (size_t i = 0; i < pixels.size(); ++i) {
      int32_t sum = 1 << (kFractionBits - 1);
      for (int64_t k = 0; k < pixels[i].count; ++k)
        sum += from[(pixels[i].first + k) * stride] * weights[static_cast<size_t>(pixels[i].weights + k)];
      to[static_cast<int64_t>(i) * stride] = static_cast<uint8_t>(std::clamp(sum >> kFractionBits, 0, 255));
    }
  }
};

int64_t whole(const std::string& path, int64_t side) {
  if (side <= kMaxImageSide) return side;
  throw Error(Exit::data, "E_IMAGE_SIZE",
              fmt::format("resizing gives a side of {} pixels, at most {} are taken", side, kMaxImageSide))
      .at("file", path);
}

Extent resized_to(const std::string& path, const ImageShape& s, const Extent& resize) {
  if (!resize.given()) return {s.height, s.width};
  if (resize.width) return resize;
  const int64_t side = resize.height;
  return s.height <= s.width ? Extent{side, whole(path, side * s.width / s.height)}
                             : Extent{whole(path, side * s.height / s.width), side};
}

Extent cropped_to(const std::string& path, const Extent& from, const Extent& crop) {
  if (!crop.given()) return from;
  const Extent to = crop.both();
  if (to.height > from.height || to.width > from.width)
    throw Error(Exit::data, "E_IMAGE_SIZE",
                fmt::format("expected at least {}x{} pixels to crop, found {}x{}", to.height, to.width,
                            from.height, from.width))
        .at("file", path)
        .hint("resize it first");
  return to;
}

// What is cut off before the middle: half, an odd one rounded to even, as torchvision does.
int64_t margin(int64_t from, int64_t to) {
  const int64_t surplus = from - to;
  return surplus / 2 + (surplus % 4 == 3);
}

void copy_middle(const uint8_t* image, int64_t channels, const Extent& from, uint8_t* out, const Extent& to) {
  const int64_t top = margin(from.height, to.height), left = margin(from.width, to.width);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t y = 0; y < to.height; ++y, out += to.width)
      std::copy_n(image + (c * from.height + top + y) * from.width + left, to.width, out);
}

}  // namespace

Image resized(const Image& image, int64_t height, int64_t width) {
  Image wide{image.channels, image.height, width, image.pixels};
  if (width != image.width) {
    const Taps taps(image.width, width);
    wide.pixels.resize(static_cast<size_t>(image.channels * image.height * width));
    for (int64_t row = 0; row < image.channels * image.height; ++row)
      taps.apply(image.pixels.data() + row * image.width, wide.pixels.data() + row * width, 1);
  }
  if (height == image.height) return wide;
  const Taps taps(image.height, height);
  Image out{image.channels, height, width,
            std::vector<uint8_t>(static_cast<size_t>(image.channels * height * width))};
  for (int64_t c = 0; c < image.channels; ++c)
    for (int64_t x = 0; x < width; ++x)
      taps.apply(wide.pixels.data() + c * image.height * width + x,
                 out.pixels.data() + c * height * width + x, width);
  return out;
}

ImageShape fitted(const std::string& path, const ImageShape& shape, const ImageFit& fit) {
  const Extent e = cropped_to(path, resized_to(path, shape, fit.resize), fit.crop);
  return {shape.channels, e.height, e.width};
}

Image fitted(const std::string& path, Image image, const ImageFit& fit) {
  const Extent size = resized_to(path, {image.channels, image.height, image.width}, fit.resize);
  const Extent to = cropped_to(path, size, fit.crop);
  if (size.height != image.height || size.width != image.width)
    image = resized(image, size.height, size.width);
  if (to.height == size.height && to.width == size.width) return image;
  Image out{image.channels, to.height, to.width, {}};
  out.pixels.resize(static_cast<size_t>(image.channels * to.height * to.width));
  copy_middle(image.pixels.data(), image.channels, size, out.pixels.data(), to);
  return out;
}

std::shared_ptr<const ImageSet> middle_of(const std::string& path, const SampleSource& set,
                                          const Extent& size, std::span<const int64_t> subset) {
  const Extent from{set.height, set.width};
  cropped_to(path, from, size);
  auto out = std::make_shared<ImageSet>();
  out->channels = set.channels, out->height = size.height, out->width = size.width;
  out->classes = set.classes, out->class_names = set.class_names;
  out->content_hash = set.content_hash;
  const int64_t count = subset.empty() ? set.count() : static_cast<int64_t>(subset.size());
  out->pixels.resize(static_cast<size_t>(count * out->sample_bytes()));
  std::vector<uint8_t> image(static_cast<size_t>(set.sample_bytes()));
  for (int64_t n = 0; n < count; ++n) {
    const int64_t i = subset.empty() ? n : subset[static_cast<size_t>(n)];
    out->labels.push_back(set.label(i));
    if (set.captioned()) out->captions.push_back(set.captions_of(0, i));
    set.copy_pixels(0, i, image.data());
    copy_middle(image.data(), set.channels, from, out->pixels.data() + n * out->sample_bytes(), size);
  }
  return out;
}

}  // namespace lockstep
