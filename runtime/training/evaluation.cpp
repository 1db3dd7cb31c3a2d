// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/evaluation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "runtime/comm/together.h"
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

// Squared errors by timestep: sums in [0, kBands), counts behind them.
void add_bands(std::span<double> sums, const Executor& executor, const Executor::Bound& bound,
               int64_t timesteps) {
  const View &p = executor.output(bound, "prediction"), &t = executor.output(bound, "target");
  const auto* steps = executor.output(bound, "timesteps").as<int32_t>();
  const int64_t n = p.dim(0), elements = p.shape().elements_from(1);
  for (int64_t i = 0; i < n; ++i) {
    double square = 0;
    for (int64_t e = i * elements; e < (i + 1) * elements; ++e) {
      const double d = double{p.as<float>()[e]} - double{t.as<float>()[e]};
      square += d * d;
    }
    const auto band = static_cast<size_t>(steps[i] * Score::kBands / timesteps);
    sums[band] += square / static_cast<double>(elements);
    sums[Score::kBands + band] += 1;
  }
}

}  // namespace

Score evaluate(Session& session, const ImageSet& images, const std::vector<int64_t>& subset) {
  const int64_t total = subset.empty() ? images.count() : static_cast<int64_t>(subset.size());
  const int64_t batch = evaluation_batch(session.options().config, total, session.comm().size());
  session.prepare_evaluation(batch);
  const Slice mine = slice_of(total, session.comm().size(), session.comm().rank());
  const auto& config = session.options().config;
  std::vector<uint8_t> pixels;
  std::vector<int32_t> labels;
  std::array<double, 2 + 2 * Score::kBands> sums{};
  for (int64_t at = mine.begin; at < mine.end; at += batch) {
    const int64_t n = std::min(batch, mine.end - at);
    pixels.resize(static_cast<size_t>(n * images.sample_bytes()));
    labels.resize(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      const int64_t index = subset.empty() ? at + i : subset[static_cast<size_t>(at + i)];
      std::memcpy(pixels.data() + i * images.sample_bytes(), images.image(index),
                  static_cast<size_t>(images.sample_bytes()));
      labels[static_cast<size_t>(i)] = images.labels[static_cast<size_t>(index)];
    }
    auto& plan = session.evaluation(n);
    StepInputs inputs;
    inputs.set(kImages, pixels), inputs.set(kLabels, labels);
    inputs.state.seed = config.seed;
    inputs.state.step = kEvaluationStep;
    inputs.state.first_sample = at;
    inputs.state.training = 0;
    inputs.state.global_samples = total;
    session.executor().run(*plan.bound, inputs);
    const float* metrics = session.executor().output(*plan.bound, "metrics").as<float>();
    sums[0] += double{metrics[0]}, sums[1] += double{metrics[1]};
    if (config.diffusion)
      add_bands(std::span(sums).subspan(2), session.executor(), *plan.bound,
                static_cast<int64_t>(config.diffusion->alphas_cumprod.size()));
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
  if (!config.diffusion) {
    score.accuracy = sums[1] / static_cast<double>(total);
    return score;
  }
  score.bands = std::array<Score::Band, Score::kBands>{};
  for (size_t i = 0; i < score.bands->size(); ++i) {
    const double count = sums[2 + Score::kBands + i];
    (*score.bands)[i] = {count > 0 ? sums[2 + i] / count : 0, static_cast<int64_t>(count)};
  }
  return score;
}

}  // namespace lockstep
