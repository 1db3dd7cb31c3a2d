// SPDX-License-Identifier: Apache-2.0
// The data set `captioned_digits`: scenes of MNIST's digits (digit_scene.h), drawn when they are asked for.
#pragma once

#include "runtime/data/dataset.h"
#include "runtime/data/digit_scene.h"

namespace lockstep {

// The test half's scenes are the same whatever seed a job trains with.
inline constexpr uint64_t kTestScenes = 0x7e57;

// Epochs of training whose captions are prompt_of_scene(): a text encoder that begins from nothing learns what words mean from
// sentences of one form many times sooner than from many forms, and the forms soon after.
inline constexpr int64_t kPlainEpochs = 2;

// Sample i shows MNIST's digit i, in another scene in each epoch, and has its label and one caption: of many forms behind
// kPlainEpochs.
class CaptionedDigits : public SampleSource {
 public:
  // split "training": scenes of pairs that are not held out, by `seed`; "test": of all pairs, by kTestScenes. Error data (65)
  // naming `path` where digits are not 28x28.
  CaptionedDigits(ImageSet mnist, const std::string& split, uint64_t seed, const std::string& path);

  int64_t count() const override { return mnist_.count(); }
  int32_t label(int64_t i) const override { return mnist_.label(i); }
  void copy_pixels(int64_t epoch, int64_t i, uint8_t* pixels) const override;
  std::vector<std::string> captions_of(int64_t epoch, int64_t i) const override;
  bool captioned() const override { return true; }

  DigitScene scene(int64_t epoch, int64_t i) const {
    return scene_of(seed_, epoch, i, static_cast<int>(label(i)), pairs_);
  }

 private:
  ImageSet mnist_;
  uint64_t seed_;
  ScenePairs pairs_;
};

// Error data (65) naming `path` where digits are not MNIST's 28x28.
void expect_mnist_shape(const std::string& path, int64_t height, int64_t width);

}  // namespace lockstep
