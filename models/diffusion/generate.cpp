// SPDX-License-Identifier: Apache-2.0
#include "models/diffusion/generate.h"

#include <algorithm>
#include <cmath>

#include "models/objectives/diffusion.h"
#include "runtime/comm/together.h"
#include "runtime/data/image_grid.h"
#include "runtime/data/sample_order.h"

namespace lockstep::diffusion {
namespace {

// The same images on every rank.
std::vector<float> finite(std::vector<float> images) {
  if (std::all_of(images.begin(), images.end(), [](float x) { return std::isfinite(x); })) return images;
  throw AgreedError(Error(Exit::diverged, "E_NOT_FINITE", "the samples hold numbers that are not finite"));
}

}  // namespace

bool guided(const GenerateRequest& r) { return !r.labels.empty() && r.guidance != 1; }

std::vector<int32_t> TextVectors::add(std::span<const int32_t> tokens) {
  const int64_t length = model_.inputs(kEncodeText)[0].spec.shape.elements(),
                texts = static_cast<int64_t>(tokens.size()) / length,
                elements = model_.outputs(kEncodeText)[0].spec.shape.elements();
  std::vector<float> all(static_cast<size_t>(texts * elements));
  const InputTensor in = input_tensor(kTokens, tokens);
  const OutputTensor out{kText, all};
  model_.run(kEncodeText, texts, std::span(&in, 1), std::span(&out, 1));
  std::vector<int32_t> numbers;
  for (auto at = all.begin(); at != all.end(); at += elements) {
    if (free_.empty()) {
      free_.push_back(static_cast<int32_t>(vectors_.size()));
      vectors_.emplace_back();
    }
    numbers.push_back(free_.back());
    free_.pop_back();
    vectors_[static_cast<size_t>(numbers.back())].assign(at, at + elements);
  }
  return numbers;
}

void TextVectors::drop(std::span<const int32_t> numbers) {
  for (int32_t number : numbers) vectors_[static_cast<size_t>(number)] = {};
  free_.insert(free_.end(), numbers.begin(), numbers.end());
}

void TextVectors::gather(std::span<const int32_t> numbers, std::vector<float>& out) const {
  out.clear();
  for (int32_t number : numbers) {
    const std::vector<float>& v = vectors_[static_cast<size_t>(number)];
    out.insert(out.end(), v.begin(), v.end());
  }
}

Predict predictor(InferenceSession& model, const TextVectors* texts) {
  return [&model, texts, gathered = std::vector<float>()](
             std::span<const float> x, std::span<const float> timesteps, std::span<const int32_t> labels,
             std::span<float> out) mutable {
    std::vector<InputTensor> inputs = {input_tensor(kImages, x), input_tensor(kTimesteps, timesteps)};
    if (texts) {
      texts->gather(labels, gathered);
      inputs.push_back(input_tensor(kText, gathered));
    } else if (!labels.empty()) {
      inputs.push_back(input_tensor(kLabels, labels));
    }
    const OutputTensor prediction{"prediction", out};
    model.run(kDenoise, static_cast<int64_t>(timesteps.size()), inputs, std::span(&prediction, 1));
  };
}

std::vector<float> decoded(InferenceSession& model, std::span<const float> latents, int64_t count) {
  std::vector<float> images(static_cast<size_t>(count * model.outputs(kDecode)[0].spec.shape.elements()));
  const InputTensor in = input_tensor(kImages, latents);
  const OutputTensor out{"image", images};
  model.run(kDecode, count, std::span(&in, 1), std::span(&out, 1));
  return images;
}

int64_t largest_batch(const GenerateRequest& r, int ranks) {
  constexpr int64_t kMostImages = 64;
  const int64_t widest = slice_of(r.count, ranks, 0).size();
  return std::clamp<int64_t>(guided(r) ? 2 * widest : widest, 1, kMostImages);
}

std::vector<float> generate(InferenceSession& model, const SchedulerConfig& scheduler,
                            const GenerateRequest& r) {
  Communicator& comm = model.comm();
  const int64_t widest = slice_of(r.count, comm.size(), 0).size();
  const Slice mine = slice_of(r.count, comm.size(), comm.rank());

  DrawingRequest d;
  const auto [channels, height, width] = model.description().drawn_shape();
  d.elements = channels * height * width;
  for (int64_t i = mine.begin; i < mine.end; ++i)
    d.numbers.push_back(r.numbers.empty() ? i : r.numbers[static_cast<size_t>(i)]);
  if (!r.labels.empty()) d.labels.assign(r.labels.begin() + mine.begin, r.labels.begin() + mine.end);
  d.guidance = r.guidance;
  d.null_label = r.null_label;
  d.seed = r.seed;
  if (!r.init_noise.empty())
    d.init_noise = r.init_noise.subspan(static_cast<size_t>(mine.begin * d.elements),
                                        static_cast<size_t>(mine.size() * d.elements));
  TextVectors texts(model);
  if (!r.tokens.empty()) {
    texts.add(r.tokens);
    model.release(kEncodeText);
  }
  const int64_t largest = model.largest_batch(kDenoise);
  std::vector<float> part = draw_images(
      d, std::max<int64_t>(1, guided(r) ? largest / 2 : largest),
      [&] { return make_sampler(r.sampler, scheduler, r.steps, r.eta); },
      predictor(model, r.tokens.empty() ? nullptr : &texts), r.progress);
  if (model.has_program(kDecode)) {
    model.release(kDenoise);
    part = decoded(model, part, mine.size());
  }
  if (comm.size() == 1) return finite(std::move(part));

  // Parts differ by one image at most: all are sent as large as the first.
  const InputShape& in = model.description().input;
  const int64_t elements = in.channels * in.height * in.width;
  const auto padded = static_cast<size_t>(widest * elements);
  part.resize(padded);
  std::vector<float> all(padded * static_cast<size_t>(comm.size()));
  comm.all_gather(std::as_bytes(std::span(part)), std::as_writable_bytes(std::span(all)));
  std::vector<float> images;
  for (int rank = 0; rank < comm.size(); ++rank) {
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(padded * static_cast<size_t>(rank));
    images.insert(images.end(), begin, begin + slice_of(r.count, comm.size(), rank).size() * elements);
  }
  return finite(std::move(images));
}

GenerateRequest default_request(const ModelDescription& model, const ClipTokenizer* tokenizer) {
  GenerateRequest r;
  r.sampler = model.sampling.sampler;
  r.steps = model.sampling.steps;
  r.eta = model.sampling.eta;
  r.guidance = model.sampling.guidance;
  r.count = model.sampling.count;
  r.seed = model.config.seed;
  if (model.conditional()) r.labels = labels_in_turn(r.count, model.input.classes);
  r.null_label = static_cast<int32_t>(model.input.classes);
  if (tokenizer) {
    const auto& prompts = model.sampling.prompts;
    set_prompts(r, *tokenizer, prompts.empty() ? std::vector<std::string>{""} : prompts);
  }
  return r;
}

std::vector<std::string> set_prompts(GenerateRequest& r, const ClipTokenizer& tokenizer,
                                     std::span<const std::string> prompts,
                                     const std::string& negative_prompt) {
  std::vector<std::string> left_out, texts(prompts.begin(), prompts.end());
  texts.push_back(negative_prompt);
  const auto length = static_cast<size_t>(tokenizer.length());
  r.tokens.resize(texts.size() * length);
  for (size_t i = 0; i < texts.size(); ++i)
    left_out.push_back(
        tokenizer.tokens(texts[i], std::span(r.tokens).subspan(i * length, length), SpecialTokens::as_text));
  r.labels = labels_in_turn(r.count, static_cast<int64_t>(prompts.size()));
  r.null_label = static_cast<int32_t>(prompts.size());
  return left_out;
}

std::vector<int32_t> labels_in_turn(int64_t count, int64_t classes) {
  std::vector<int32_t> labels(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) labels[static_cast<size_t>(i)] = static_cast<int32_t>(i % classes);
  return labels;
}

std::vector<Image> pictures(std::span<const float> images, const InputShape& shape) {
  const auto elements = static_cast<size_t>(shape.channels * shape.height * shape.width);
  std::vector<Image> all;
  for (size_t at = 0; at < images.size(); at += elements)
    all.push_back(image_of(images.subspan(at, elements), shape.channels, shape.height, shape.width));
  return all;
}

Image grid(std::span<const Image> pictures) {
  const auto columns = static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(pictures.size()))));
  return make_grid(pictures, columns);
}

}  // namespace lockstep::diffusion
