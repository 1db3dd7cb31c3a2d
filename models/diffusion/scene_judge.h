// SPDX-License-Identifier: Apache-2.0
// How well a model that draws captioned digits does what it is asked for: each attribute is read by rules
// (runtime/data/scene_reading.h), the digit by a classifier of MNIST.
#pragma once

#include <span>
#include <vector>

#include "models/inference_session.h"
#include "runtime/data/scene_reading.h"

namespace lockstep::diffusion {

struct SceneVerdict {
  SceneReading read;
  int digit = 0;  // as the classifier has it
  // Whether it is as asked. Of a picture that shows nothing only the paper can be.
  bool digit_right = false, ink_right = false, paper_right = false, place_right = false, size_right = false;
  bool all_right() const { return digit_right && ink_right && paper_right && place_right && size_right; }
};

// pictures: u8 [asked, 3, 32, 32]. Throws Error(Exit::config) where the classifier does not know images of MNIST's
// shape by the classes 0 to 9.
std::vector<SceneVerdict> judge_scenes(InferenceSession& classifier, std::span<const uint8_t> pictures,
                                       std::span<const DigitScene> asked);
// What judge_scenes() would throw.
void expect_digit_classifier(const ModelDescription& classifier);

// Shares, 0..1, of what is right.
struct SceneShares {
  int64_t count = 0;
  double digit = 0, ink = 0, paper = 0, place = 0, size = 0, all = 0;
};
SceneShares shares_of(std::span<const SceneVerdict> verdicts);

}  // namespace lockstep::diffusion
