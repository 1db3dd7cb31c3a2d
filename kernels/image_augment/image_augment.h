// Random crop and flip of training images, drawn anew at every step.
//
// Op               inputs                         outputs
//   image_augment  x [N, C, H, W] u8, step_state  y u8 like x
// x is padded by `padding` black pixels (0) on each side, a window of H x W is cut out of it, and it is
// mirrored left to right: what torchvision's RandomCrop((H, W), padding) and RandomHorizontalFlip() do one
// after the other.
//   y[n, c, i, j] = padded x[n, c, top + i, left + (mirrored ? W - 1 - j : j)]
// Augmentation draws them. Both tensors are plain. There is no gradient: x is data.
#pragma once

#include <fmt/format.h>

#include <string>

#include "kernels/core/philox.h"
#include "kernels/core/step_state.h"

namespace lockstep {

struct ImageAugmentParams {
  bool flip = false;    // mirror half of the images
  int64_t padding = 0;  // >= 0; the window's place is uniform over all (2 padding + 1)^2
  std::string text() const { return fmt::format("flip={} padding={}", flip, padding); }
};

// What happens to local sample n: words 0 (top), 1 (left) and the highest bit of word 2 (mirrored) of
// random4(seed, stream::kAugment, step, first_sample + n, 0).
struct Augmentation {
  int64_t top, left;  // in the padded image: 0 .. 2 padding
  bool mirrored;

  LOCKSTEP_HOST_DEVICE static Augmentation of(const StepState& state, int64_t n, bool flip, int64_t padding) {
    const Philox4 draw = random4(state.seed, stream::kAugment, state.step, state.first_sample + n, 0);
    const auto places = static_cast<uint64_t>(2 * padding + 1);
    return {static_cast<int64_t>(draw.x[0] * places >> 32), static_cast<int64_t>(draw.x[1] * places >> 32),
            flip && draw.x[2] >> 31 != 0};
  }
};

}  // namespace lockstep
