// SPDX-License-Identifier: Apache-2.0
// Pictures of any size to images of one.
#pragma once

#include <memory>
#include <span>

#include "runtime/data/codec.h"

namespace lockstep {

// Bilinear and antialiased, to the bit as Pillow's Image.resize(BILINEAR) of 8-bit bands: along each side
// that changes, rows first, a pixel is the mean of those within max(1, scale) of its centre, weighted by a
// triangle of that half width (scale: stored pixels a new one), in 22-bit fixed point and rounded to 8 bits
// after each of the two passes.
Image resized(const Image& image, int64_t height, int64_t width);

// A set of the middles of every image, or, where `subset` isn't empty, of those whose numbers it has. Error
// data (65) naming `path` where images are smaller.
std::shared_ptr<const ImageSet> middle_of(const std::string& path, const SampleSource& set,
                                          const Extent& size, std::span<const int64_t> subset = {});

// What ImageFit says, on the shape and on the picture. Error data (65) where the picture is smaller than the crop.
ImageShape fitted(const std::string& path, const ImageShape& shape, const ImageFit& fit);
Image fitted(const std::string& path, Image image, const ImageFit& fit);

}  // namespace lockstep
