// SPDX-License-Identifier: Apache-2.0
// Random crop and flip of training images, drawn anew at every step.
//
// Op               inputs                         outputs
//   image_augment  x [N, C, H, W] u8, step_state  y [N, C, h, w] u8
// x is padded by `padding` black pixels (0) on each side, a window of h x w (H x W, unless the parameters say
// less) is cut out of it, and it is mirrored left to right: what torchvision's RandomCrop((h, w), padding)
// and RandomHorizontalFlip() do one after the other.
//   y[n, c, i, j] = padded x[n, c, down + i, right + (mirrored ? w - 1 - j : j)]
// Augmentation draws them. Both tensors are plain. There is no gradient: x is data.
#pragma once

#include <fmt/format.h>

#include <string>

#include "kernels/core/step_state.h"
#include "kernels/random/philox.h"

namespace lockstep {

struct ImageAugmentParams {
  bool flip = false;              // mirror half of the images
  int64_t padding = 0;            // >= 0; the window's place is uniform over all that there are
  int64_t height = 0, width = 0;  // of the window, 1 .. H and 1 .. W; 0: H and W

  std::string text() const {
    return fmt::format("flip={} padding={} window={}x{}", flip, padding, height, width);
  }
};

// What happens to local sample n: words 0 (down), 1 (right) and the highest bit of word 2 (mirrored) of
// random4(seed, stream::kAugment, step, first_sample + n, 0).
struct Augmentation {
  int64_t down, right;  // the window's place in the image: from -padding on
  bool mirrored;

  // rows, columns: what the image has more than the window.
  LOCKSTEP_HOST_DEVICE static Augmentation of(const StepState& state, int64_t n, bool flip, int64_t padding,
                                              int64_t rows, int64_t columns) {
    const Philox4 draw = random4(state.seed, stream::kAugment, state.step, state.first_sample + n, 0);
    const auto place = [padding](uint64_t word, int64_t surplus) {
      return static_cast<int64_t>(word * static_cast<uint64_t>(surplus + 2 * padding + 1) >> 32) - padding;
    };
    return {place(draw.x[0], rows), place(draw.x[1], columns), flip && draw.x[2] >> 31 != 0};
  }
};

}  // namespace lockstep
