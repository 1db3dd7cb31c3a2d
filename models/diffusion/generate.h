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
#include "runtime/text/clip_tokenizer.h"

namespace lockstep::diffusion {

struct GenerateRequest {
  std::string sampler = "ddim";
  int64_t steps = 50;
  double eta = 0, guidance = 1;
  int64_t count = 1;
  std::vector<int32_t> labels;  // [count]; empty: a model that is asked nothing
  int32_t null_label = 0;       // guidance's 'no class', or no text
  // Of a model that reads text: texts [texts, T], whose numbers the labels are.
  std::vector<int32_t> tokens = {};
  uint64_t seed = 0;
  // [count]: an image's noise is drawn by the seed and its number. Empty: 0, 1, ...
  std::vector<int64_t> numbers = {};
  std::span<const float>
      init_noise;  // [count, ModelDescription::drawn_shape] standard normal, instead of the seed's
  // On every rank, of its own share.
  std::function<void(int64_t done, int64_t total)> progress = {};
};

// [count, C, H, W] in the model's range, [-1, 1] but for a sampler that does not clip; the same on every
// rank, and on any number of ranks. Collective.
std::vector<float> generate(InferenceSession& model, const SchedulerConfig& scheduler,
                            const GenerateRequest& request);
// Whether a label's prediction and that of none are both asked for.
bool guided(const GenerateRequest& request);
// The largest batch that a rank of so many computes at once for it: what InferenceOptions wants.
int64_t largest_batch(const GenerateRequest& request, int ranks);

// What the text encoder makes of texts, by numbers that it gives them. `model` outlives it.
class TextVectors {
 public:
  explicit TextVectors(InferenceSession& model) : model_(model) {}
  // tokens [texts, T]. The numbers of the first texts are 0, 1, ...; later those that were dropped are given again.
  std::vector<int32_t> add(std::span<const int32_t> tokens);
  void drop(std::span<const int32_t> numbers);
  // Those of texts by their numbers, one after the other.
  void gather(std::span<const int32_t> numbers, std::vector<float>& out) const;

 private:
  InferenceSession& model_;
  std::vector<std::vector<float>> vectors_;  // [T, W] each
  std::vector<int32_t> free_;
};

// The session's predictions; texts: what labels are the numbers of, of a model that reads text. Both outlive it.
Predict predictor(InferenceSession& model, const TextVectors* texts = nullptr);
// Pictures of so many latents (kDecode).
std::vector<float> decoded(InferenceSession& model, std::span<const float> latents, int64_t count);

// What the model's own defaults say: images of each class or prompt in turn. tokenizer: of a model that reads text.
GenerateRequest default_request(const ModelDescription& model, const ClipTokenizer* tokenizer = nullptr);
// One label an image, of each class in turn.
std::vector<int32_t> labels_in_turn(int64_t count, int64_t classes);
// Images of each prompt in turn. Returns what was beyond the text encoder's tokens and left out, a text a prompt, "" where
// all fits; the negative prompt's last. Error usage (64) where a text is not UTF-8.
std::vector<std::string> set_prompts(GenerateRequest& request, const ClipTokenizer& tokenizer,
                                     std::span<const std::string> prompts,
                                     const std::string& negative_prompt = "");

// The images as pictures, and as one grid that is as square as it can be.
std::vector<Image> pictures(std::span<const float> images, const InputShape& shape);
Image grid(std::span<const Image> pictures);

}  // namespace lockstep::diffusion
