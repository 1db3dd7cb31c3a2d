// SPDX-License-Identifier: Apache-2.0
// The training loop in its steady state: reading batches, the step, counting and progress allocate nothing.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "models/objectives/classification.h"
#include "runtime/training/trainer.h"
#include "tests/runtime/graph/nets.h"
#include "tests/support/allocations.h"
#include "tests/support/files.h"
#include "tests/support/own_cache.h"

namespace lockstep::testing {
namespace {

constexpr int64_t kEpoch = 11;  // steps; the last with 16 samples instead of 32

TrainerOptions job(const std::string& run_folder, const std::string& cache, int threads, int64_t parts) {
  TrainerOptions o;
  const auto network = [](ModelContext& c, ValueId x) {
    const Layers l{c.builder, c.step_state};
    x = l.max_pool(l.relu(l.batch_norm("bn", l.conv("conv1", x, 4, 5))));
    x = l.dropout(l.avg_pool(l.conv("conv2", x, 6, 3)), true);
    return l.linear("fc2", l.dropout(l.relu(l.linear("fc1", x, 20)), false), 10);
  };
  o.objective = [network, config = o.config](const InputShape& input) {
    return classification(network, input, config);
  };
  o.training_data.dataset = "mnist";
  o.training_data.path = LOCKSTEP_SOURCE_DIR "/configs/data/mnist";
  o.training_data.split = "training";
  o.training_data.limit = (kEpoch - 1) * 32 + 16;
  o.config.steps = 4 * kEpoch;
  o.config.global_batch_size = 32;
  o.config.gradient_accumulation = parts;
  o.config.optimizer.name = "adam";
  o.config.lr_schedule.name = "cosine";
  o.config.clip_grad_norm = 1;
  o.log_every = 20;
  o.kernels = {Device::cpu, threads, "test", cache};
  o.run_folder = run_folder;
  return o;
}

// oneDNN makes its argument lists anew on each call: its own, small, and out of reach. The choice that the
// next run finds is one without it.
void forget_onednn(const std::string& cache) {
  nlohmann::json choices = nlohmann::json::parse(read_file(cache));
  for (auto& [key, kernel] : choices.items())
    if (kernel == "onednn") kernel = key.find(" linear") != std::string::npos ? "highway" : "reference";
  write_file(cache, choices.dump());
}

class Trainer : public ::testing::TestWithParam<std::pair<int, int64_t>> {};

TEST_P(Trainer, StepsBetweenLogsAllocateNothing) {
  const auto [threads, parts] = GetParam();
  const OwnCache own_cache;
  const TestFolder folder;
  const std::string cache = folder.file("kernels.json");
  const auto comm = make_self_communicator();
  std::vector<int64_t> counts(4 * kEpoch + 1);  // after so many steps; nothing below grows
  for (const char* run : {"first", "second"}) {
    std::filesystem::create_directories(folder.file(run));
    TrainerOptions o = job(folder.file(run), cache, threads, parts);
    o.on_step = [&](int64_t step, int64_t) { counts[static_cast<size_t>(step)] = allocations; };
    EXPECT_EQ(train(o, *comm).step, 4 * kEpoch);
    forget_onednn(cache);
  }
  ASSERT_EQ(read_file(folder.file("second/plan.json")).find("onednn"), std::string::npos);

  int64_t quiet = 0;
  for (int64_t step = 1; step < 4 * kEpoch; ++step) {
    const int64_t made = counts[static_cast<size_t>(step + 1)] - counts[static_cast<size_t>(step)];
    if (step % 20 == 0 || step % kEpoch == 0) {
      EXPECT_GT(made, 0) << "the counter counts: a line was written after step " << step;
    } else {
      EXPECT_EQ(made, 0) << "from step " << step << " to " << step + 1;
      ++quiet;
    }
  }
  EXPECT_EQ(quiet, 4 * kEpoch - 1 - 2 - 3);
}
// Timing: alone, since a run of more than five seconds prints a line of progress, which allocates.
INSTANTIATE_TEST_SUITE_P(TimingThreadsAndParts, Trainer,
                         ::testing::Values(std::pair(1, 1), std::pair(2, 1), std::pair(1, 2)));

}  // namespace
}  // namespace lockstep::testing
