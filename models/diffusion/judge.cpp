// SPDX-License-Identifier: Apache-2.0
#include "models/diffusion/judge.h"

#include <algorithm>
#include <array>

namespace lockstep::diffusion {
namespace {

Gaussian features_of(const Reading& r) { return gaussian_of(r.features, r.width); }

}  // namespace

Reading read_images(InferenceSession& classifier, std::span<const uint8_t> pixels) {
  const InputShape& in = classifier.description().input;
  const auto count = static_cast<int64_t>(pixels.size()) / (in.channels * in.height * in.width);
  if (!classifier.has_output(kClassify, "features"))
    throw Error(Exit::config, "E_JUDGE_FEATURES",
                "the classifier has no linear layer, whose input the Fréchet distance is taken of");

  Reading r;
  std::vector<float> log_p(static_cast<size_t>(count * in.classes));
  for (const Port& p : classifier.outputs(kClassify))
    if (p.name == "features") r.width = p.spec.shape.elements();
  r.features.resize(static_cast<size_t>(count * r.width));
  const InputTensor images = input_tensor(kImages, pixels);
  const std::array<OutputTensor, 2> outputs = {{{"log_probabilities", log_p}, {"features", r.features}}};
  classifier.run(kClassify, count, std::span(&images, 1), outputs);
  for (auto p = log_p.begin(); p != log_p.end(); p += in.classes)
    r.classes.push_back(static_cast<int32_t>(std::max_element(p, p + in.classes) - p));
  return r;
}

Judge::Judge(InferenceSession& classifier, std::span<const uint8_t> training,
             std::span<const uint8_t> reference)
    : classifier_(classifier),
      reference_(features_of(read_images(classifier, reference))),
      training_distance_(frechet_distance(reference_, features_of(read_images(classifier, training)))) {}

Verdict Judge::operator()(std::span<const uint8_t> samples, std::span<const int32_t> labels) const {
  const Reading read = read_images(classifier_, samples);
  Verdict v;
  v.distance = frechet_distance(reference_, features_of(read));
  v.training_distance = training_distance_;
  if (labels.empty()) return v;
  LOCKSTEP_ASSERT(labels.size() == read.classes.size());
  int64_t right = 0;
  for (size_t i = 0; i < labels.size(); ++i) right += labels[i] == read.classes[i];
  v.accuracy = static_cast<double>(right) / static_cast<double>(labels.size());
  return v;
}

}  // namespace lockstep::diffusion
