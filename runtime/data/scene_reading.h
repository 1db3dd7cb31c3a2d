// SPDX-License-Identifier: Apache-2.0
// What a picture shows, if it is one of the captioned digits: read by rules, without a model, but for the digit, which is left
// to a classifier of MNIST.
#pragma once

#include "runtime/data/digit_scene.h"

namespace lockstep {

struct SceneReading {
  bool found = false;  // whether anything stands out from the paper; what follows but paper needs it
  int paper = 0;       // the colour nearest to the median of the outermost pixels
  int ink = 0;         // the one nearest to the median of those that differ most from the paper
  DigitPlace place = DigitPlace::centre;
  DigitSize size = DigitSize::small;
  // White on black as MNIST's: the box of what differs from the paper, its longer side scaled to 20 pixels, its centre of mass
  // in the middle of [28, 28].
  std::array<uint8_t, kDigitBytes> digit{};
};

// picture: u8 [3, 32, 32].
SceneReading read_scene(std::span<const uint8_t> picture);

}  // namespace lockstep
