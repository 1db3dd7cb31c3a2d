// SPDX-License-Identifier: Apache-2.0
#include "models/diffusion/judge.h"

#include <algorithm>

#include "runtime/training/evaluation.h"

namespace lockstep::diffusion {
namespace {

Gaussian features_of(const Reading& r) { return gaussian_of(r.features, r.width); }

}  // namespace

Reading read_images(Session& classifier, std::span<const uint8_t> pixels) {
  const InputShape& in = classifier.options().input;
  const int64_t bytes = in.channels * in.height * in.width,
                count = static_cast<int64_t>(pixels.size()) / bytes;
  const int64_t batch = evaluation_batch(classifier.options().config, count, 1);
  classifier.prepare_prediction(batch);
  const Graph& graph = classifier.prediction(batch).plan->graph;
  const auto outputs = graph.values_in(Storage::output);
  if (std::none_of(outputs.begin(), outputs.end(),
                   [&](ValueId v) { return graph.value(v).name == "features"; }))
    throw Error(Exit::config, "E_JUDGE_FEATURES",
                "the classifier has no linear layer, whose input the Fréchet distance is taken of");

  Reading r;
  const std::vector<int32_t> no_labels(static_cast<size_t>(batch));
  for (int64_t at = 0; at < count; at += batch) {
    const int64_t n = std::min(batch, count - at);
    auto& plan = classifier.prediction(n);
    StepInputs inputs{pixels.data() + at * bytes, no_labels.data(), {}};
    inputs.state.training = 0;
    classifier.executor().run(*plan.bound, inputs);
    const View& features = classifier.executor().output(*plan.bound, "features");
    const float* log_p = classifier.executor().output(*plan.bound, "log_probabilities").as<float>();
    r.width = features.dim(1);
    r.features.insert(r.features.end(), features.as<float>(), features.as<float>() + n * r.width);
    for (const float* p = log_p; p != log_p + n * in.classes; p += in.classes)
      r.classes.push_back(static_cast<int32_t>(std::max_element(p, p + in.classes) - p));
  }
  return r;
}

Judge::Judge(Session& classifier, std::span<const uint8_t> training, std::span<const uint8_t> reference)
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
