// SPDX-License-Identifier: Apache-2.0
// From a model's numbers to pictures.
#pragma once

#include <span>

#include "runtime/data/dataset.h"

namespace lockstep {

// A sample [channels, height, width] in [-1, 1], as diffusers makes pictures of them: clipped, scaled to 0 ..
// 255 and rounded to nearest, ties to even. channels: 1 or 3.
Image image_of(std::span<const float> sample, int64_t channels, int64_t height, int64_t width);

// Pictures of one shape in rows of `columns`, two black pixels between them and around.
Image make_grid(std::span<const Image> images, int64_t columns);

}  // namespace lockstep
