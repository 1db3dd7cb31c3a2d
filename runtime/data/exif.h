// SPDX-License-Identifier: Apache-2.0
// Which way up a camera was held: the Orientation tag (0x0112) of EXIF (JEITA CP-3451), which PNG and JPEG
// carry alike.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/data/codec.h"

namespace lockstep {

// Of a TIFF structure, which EXIF is. 1 (upright) where it says nothing valid: then it is not what was meant.
int exif_orientation(std::span<const uint8_t> tiff);

// The shape and the picture once they are turned upright.
ImageShape upright(const ImageShape& shape, int orientation);
Image upright(Image image, int orientation);

}  // namespace lockstep
