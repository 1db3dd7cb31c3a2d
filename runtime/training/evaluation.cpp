// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/evaluation.h"

#include <algorithm>
#include <cmath>

#include "runtime/comm/together.h"
#include "runtime/data/captions.h"
#include "runtime/data/sample_order.h"

namespace lockstep {

int64_t evaluation_batch(const TrainingConfig& c, int64_t images, int ranks) {
  const int64_t parts = micro_batches(c, ranks) * ranks;
  const int64_t at_once = std::clamp<int64_t>((c.global_batch_size + parts - 1) / parts, 16, 128);
  return std::min(at_once, slice_of(images, ranks, 0).size());
}

namespace {

// Beyond any step of training.
constexpr int64_t kEvaluationStep = 0xFFFFFFFF;

}  // namespace

Score evaluate(Session& session, const SampleSource& images, const std::vector<int64_t>& subset,
               const ClipTokenizer* tokenizer) {
  const int64_t total = subset.empty() ? images.count() : static_cast<int64_t>(subset.size());
  const int64_t batch = evaluation_batch(session.options().config, total, session.comm().size());
  session.prepare(session.evaluation(), batch);
  const Slice mine = slice_of(total, session.comm().size(), session.comm().rank());
  const auto& config = session.options().config;
  std::vector<uint8_t> pixels;
  std::vector<int32_t> labels, tokens;
  const int64_t length = tokenizer ? tokenizer->length() : 0;
  const Objective& objective = *session.options().objective;
  std::vector<double> sums(2 + objective.sums());
  for (int64_t at = mine.begin; at < mine.end; at += batch) {
    const int64_t n = std::min(batch, mine.end - at);
    pixels.resize(static_cast<size_t>(n * images.sample_bytes()));
    labels.resize(static_cast<size_t>(n));
    tokens.resize(static_cast<size_t>(n * length));
    for (int64_t i = 0; i < n; ++i) {
      const int64_t index = subset.empty() ? at + i : subset[static_cast<size_t>(at + i)];
      images.copy_pixels(0, index, pixels.data() + i * images.sample_bytes());
      labels[static_cast<size_t>(i)] = images.label(index);
      if (tokenizer)
        tokenizer->tokens(caption_of(images, index, config.seed, 0, 0),
                          {tokens.data() + i * length, static_cast<size_t>(length)}, SpecialTokens::as_text);
    }
    auto& plan = session.program(session.evaluation(), n);
    StepInputs inputs;
    inputs.set(kImages, pixels);
    tokenizer ? inputs.set(kTokens, tokens) : inputs.set(kLabels, labels);
    inputs.state.seed = config.seed;
    inputs.state.step = kEvaluationStep;
    inputs.state.first_sample = at;
    inputs.state.training = 0;
    inputs.state.global_samples = total;
    session.executor().run(*plan.bound, inputs);
    const auto output = [&](const std::string& name) -> const View& {
      return session.executor().output(*plan.bound, name);
    };
    const float* metrics = output("metrics").as<float>();
    sums[0] += double{metrics[0]}, sums[1] += double{metrics[1]};
    objective.add(output, labels, std::span(sums).subspan(2));
  }
  session.control().allreduce(std::span<double>(sums), Reduce::sum);
  Score score;
  score.count = total;
  score.loss = sums[0] / static_cast<double>(total);
  if (!std::isfinite(score.loss))
    throw AgreedError(
        Error(Exit::diverged, "E_NOT_FINITE",
              fmt::format("the loss over {} images is {}", total,
                          std::isnan(score.loss) ? "not a number" : "infinite"))
            .hint("the weights, or what they make of these images, are infinite or not a number"));
  if (objective.counts_right_answers()) score.accuracy = sums[1] / static_cast<double>(total);
  objective.finish(std::span(sums).subspan(2), score);
  return score;
}

}  // namespace lockstep
