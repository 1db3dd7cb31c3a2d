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

Predict predictor(InferenceSession& model) {
  return [&model](std::span<const float> x, std::span<const float> timesteps, std::span<const int32_t> labels,
                  std::span<float> out) {
    std::vector<InputTensor> inputs = {input_tensor(kImages, x), input_tensor(kTimesteps, timesteps)};
    if (!labels.empty()) inputs.push_back(input_tensor(kLabels, labels));
    const OutputTensor prediction{"prediction", out};
    model.run(kDenoise, static_cast<int64_t>(timesteps.size()), inputs, std::span(&prediction, 1));
  };
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
  const auto& in = model.description().input;

  DrawingRequest d;
  d.elements = in.channels * in.height * in.width;
  for (int64_t i = mine.begin; i < mine.end; ++i)
    d.numbers.push_back(r.numbers.empty() ? i : r.numbers[static_cast<size_t>(i)]);
  if (!r.labels.empty()) d.labels.assign(r.labels.begin() + mine.begin, r.labels.begin() + mine.end);
  d.guidance = r.guidance;
  d.null_label = r.null_label;
  d.seed = r.seed;
  if (!r.init_noise.empty())
    d.init_noise = r.init_noise.subspan(static_cast<size_t>(mine.begin * d.elements),
                                        static_cast<size_t>(mine.size() * d.elements));
  const int64_t largest = model.largest_batch(kDenoise);
  std::vector<float> part = draw_images(
      d, std::max<int64_t>(1, guided(r) ? largest / 2 : largest),
      [&] { return make_sampler(r.sampler, scheduler, r.steps, r.eta); }, predictor(model), r.progress);
  if (comm.size() == 1) return finite(std::move(part));

  // Parts differ by one image at most: all are sent as large as the first.
  const auto padded = static_cast<size_t>(widest * d.elements);
  part.resize(padded);
  std::vector<float> all(padded * static_cast<size_t>(comm.size()));
  comm.all_gather(std::as_bytes(std::span(part)), std::as_writable_bytes(std::span(all)));
  std::vector<float> images;
  for (int rank = 0; rank < comm.size(); ++rank) {
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(padded * static_cast<size_t>(rank));
    images.insert(images.end(), begin, begin + slice_of(r.count, comm.size(), rank).size() * d.elements);
  }
  return finite(std::move(images));
}

GenerateRequest default_request(const ModelDescription& model) {
  GenerateRequest r;
  r.sampler = model.sampling.sampler;
  r.steps = model.sampling.steps;
  r.eta = model.sampling.eta;
  r.guidance = model.sampling.guidance;
  r.count = model.sampling.count;
  r.seed = model.config.seed;
  if (model.conditional()) r.labels = labels_in_turn(r.count, model.input.classes);
  r.null_label = static_cast<int32_t>(model.input.classes);
  return r;
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
