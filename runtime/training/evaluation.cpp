#include "runtime/training/evaluation.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "runtime/data/sampler.h"

namespace lockstep {

int64_t evaluation_batch(int64_t images, int ranks) {
  return std::min(kEvaluationBatch, slice_of(images, ranks, 0).size());
}

Score evaluate(Session& session, const ImageSet& images, const std::vector<int64_t>& subset) {
  const int64_t total = subset.empty() ? images.count() : static_cast<int64_t>(subset.size());
  session.prepare_evaluation(evaluation_batch(total, session.comm().size()));
  const Slice mine = slice_of(total, session.comm().size(), session.comm().rank());
  std::vector<uint8_t> pixels;
  std::vector<int32_t> labels;
  std::array<double, 2> sums{};
  for (int64_t at = mine.begin; at < mine.end; at += kEvaluationBatch) {
    const int64_t n = std::min(kEvaluationBatch, mine.end - at);
    pixels.resize(static_cast<size_t>(n * images.sample_bytes()));
    labels.resize(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      const int64_t index = subset.empty() ? at + i : subset[static_cast<size_t>(at + i)];
      std::memcpy(pixels.data() + i * images.sample_bytes(), images.image(index), static_cast<size_t>(images.sample_bytes()));
      labels[static_cast<size_t>(i)] = images.labels[static_cast<size_t>(index)];
    }
    auto& plan = session.evaluation(n);
    StepInputs inputs{pixels.data(), labels.data(), {}};
    inputs.state.training = 0;
    inputs.state.global_samples = total;
    session.executor().run(*plan.bound, inputs);
    const float* metrics = session.executor().output(*plan.bound, "metrics").as<float>();
    sums[0] += double{metrics[0]}, sums[1] += double{metrics[1]};
  }
  session.control().allreduce(std::span<double>(sums), Reduce::sum);
  return {sums[0] / static_cast<double>(total), sums[1] / static_cast<double>(total), total};
}

}  // namespace lockstep
