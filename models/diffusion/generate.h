// SPDX-License-Identifier: Apache-2.0
// Images from a diffusion model, drawn by all its ranks together.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "models/diffusion/drawing.h"
#include "models/inference_session.h"
#include "runtime/data/dataset.h"

namespace lockstep::diffusion {

struct GenerateRequest {
  std::string sampler = "ddim";
  int64_t steps = 50;
  double eta = 0, guidance = 1;
  int64_t count = 1;
  // What each image shows, [count]: a class, or the number of one of `texts`; empty: the model asks nothing.
  std::vector<int32_t> labels;
  int32_t null_label = 0;  // what guidance goes away from: 'no class', or the text that says nothing
  std::vector<std::vector<int32_t>> texts;  // tokens, of a model that reads them
  uint64_t seed = 0;
  // [count]: an image's noise is drawn by the seed and its number. Images of a text are numbered from 0, so that
  // they do not depend on the other texts. Empty: 0, 1, ...
  std::vector<int64_t> numbers = {};
  std::span<const float> init_noise;  // [count, C, H, W] standard normal, instead of the seed's
  // On every rank, of its own share.
  std::function<void(int64_t done, int64_t total)> progress = {};
};

// [count, C, H, W] in the model's range, [-1, 1] but for a sampler that does not clip; the same on every
// rank, and on any number of ranks. Collective.
std::vector<float> generate(InferenceSession& model, const SchedulerConfig& scheduler,
                            const GenerateRequest& request);
// The largest batch that a rank of so many computes at once for it: what InferenceOptions wants.
int64_t largest_batch(const GenerateRequest& request, int ranks);

// What the text encoder makes of each text, [texts, T x W].
struct TextVectors {
  std::vector<float> values;
  size_t width = 0;
  std::span<const float> of(int32_t text) const {
    return std::span(values).subspan(static_cast<size_t>(text) * width, width);
  }
};
TextVectors encode_texts(InferenceSession& model, const std::vector<std::vector<int32_t>>& texts);
// The session's predictions; labels number the texts, where there are some. `model` outlives it.
Predict predictor(InferenceSession& model, TextVectors texts);

// What the model's own defaults say: images of each class in turn, where it knows classes.
GenerateRequest default_request(const ModelDescription& model);
// One label an image, of each class in turn.
std::vector<int32_t> labels_in_turn(int64_t count, int64_t classes);

// The images as pictures, and as one grid that is as square as it can be.
std::vector<Image> pictures(std::span<const float> images, const InputShape& shape);
Image grid(std::span<const Image> pictures);

}  // namespace lockstep::diffusion
