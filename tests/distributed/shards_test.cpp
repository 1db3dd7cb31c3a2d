// SPDX-License-Identifier: Apache-2.0
// With `shards` a job gives the same bits on any number of ranks: every loss, the weights, the optimizer's
// state.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "runtime/checkpoint/checkpoint.h"
#include "tests/distributed/fit.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::shards_test {
namespace {

constexpr const char* kData = LOCKSTEP_SOURCE_DIR "/configs/data/mnist";

struct Job {
  std::string name, file;
  int64_t steps;
  std::vector<std::string> overrides;
};

// Dropout, augmentation, warm-up, clipping, Adam's state, and a last batch of an epoch that eight shards do
// not share evenly; a UNet with attention, group norm and a moving average.
const std::vector<Job>& jobs() {
  static const std::vector<Job> all = {
      {"mnist",
       LOCKSTEP_SOURCE_DIR "/configs/mnist_cnn.yaml",
       24,
       {fmt::format("inputs.training={{dataset: mnist, path: {}, limit: 1357, augment: {{flip: true, "
                    "crop_padding: 2}}}}",
                    kData),
        fmt::format("inputs.test={{dataset: mnist, path: {}, limit: 100}}", kData),
        "hyperparameters.optimizer={name: adamw, lr: 0.002}", "hyperparameters.clip_grad_norm=0.5",
        "hyperparameters.lr_schedule={name: cosine, warmup_steps: 5}"}},
      {"diffusion", LOCKSTEP_SOURCE_DIR "/tests/golden/diffusion/tiny.yaml", 6, {}}};
  return all;
}

class Shards : public ::testing::TestWithParam<size_t> {
 protected:
  const Job& job() const { return jobs()[GetParam()]; }
  std::string train(const std::string& name, int ranks, int64_t steps,
                    const std::vector<std::string>& more = {},
                    const std::string& shards = "hyperparameters.shards=8") {
    const std::string run = folder_.file(name);
    std::vector<std::string> overrides = job().overrides;
    overrides.insert(overrides.end(),
                     {"instance_count=" + std::to_string(ranks), shards, "threads_per_rank=1",
                      "hyperparameters.steps=" + std::to_string(steps), "log_every=1"});
    overrides.insert(overrides.end(), more.begin(), more.end());
    EXPECT_TRUE(fit(job().file, run, overrides));
    return run;
  }
  static std::string file(const std::string& run, int64_t step, const char* name) {
    return read_file(run + "/checkpoints/" + checkpoint_name(step) + "/" + name);
  }
  TestFolder folder_;
};

TEST_P(Shards, SameBitsOnOneTwoFourAndEightRanks) {
  const std::string one = train("one", 1, job().steps);
  const auto losses = step_losses(one, job().steps);
  for (int ranks : {2, 4, 8}) {
    const std::string several = train(std::to_string(ranks), ranks, job().steps);
    EXPECT_EQ(step_losses(several, job().steps), losses) << ranks;
    for (const char* name : {"model.safetensors", "state.safetensors"})
      EXPECT_TRUE(file(several, job().steps, name) == file(one, job().steps, name)) << name << ", " << ranks;
  }
  // What the test would not see if bits were equal anyhow: without shards they part.
  const std::string none = "hyperparameters.gradient_accumulation=1";
  const std::string a = train("a", 1, job().steps, {}, none), b = train("b", 2, job().steps, {}, none);
  EXPECT_FALSE(file(a, job().steps, "model.safetensors") == file(b, job().steps, "model.safetensors"));
}

TEST_P(Shards, ResumedByAnotherNumberOfRanksWithTheSameBits) {
  const int64_t half = job().steps / 2;
  const std::string whole = train("whole", 1, job().steps);
  const std::string run =
      train("parts", 4, job().steps, {"checkpoint.every_steps=" + std::to_string(half), "checkpoint.keep=0"});
  std::filesystem::remove_all(run + "/checkpoints/" + checkpoint_name(job().steps));
  std::vector<std::string> command = {LOCKSTEP_BINARY, "fit",   run + "/job.yaml", "--output", run,
                                      "--resume",      "--set", "instance_count=2"};
  Process process(command, {{"XDG_CACHE_HOME", kTestCache}});
  ASSERT_EQ(process.wait(), 0) << process.output();
  EXPECT_EQ(step_losses(run, job().steps), step_losses(whole, job().steps));
  for (const char* name : {"model.safetensors", "state.safetensors"})
    EXPECT_TRUE(file(run, job().steps, name) == file(whole, job().steps, name)) << name;
}

INSTANTIATE_TEST_SUITE_P(Jobs, Shards, ::testing::Values(0, 1),
                         [](const auto& test) { return jobs()[test.param].name; });

TEST(ShardsRefused, WhereBitsWouldDependOnTheRanksAfterAll) {
  TestFolder folder;
  Process batch_norm({LOCKSTEP_BINARY, "check", LOCKSTEP_SOURCE_DIR "/configs/mnist_layers.yaml", "--set",
                      "hyperparameters.shards=4", "--set", "threads_per_rank=1"});
  EXPECT_EQ(batch_norm.wait(), 78) << batch_norm.output();
  EXPECT_NE(batch_norm.output().find("batch norm's statistics"), std::string::npos) << batch_norm.output();

  // The thread count is part of how the run computes.
  const std::string run = folder.file("run");
  const std::vector<std::string> small = {
      fmt::format("inputs.training={{dataset: mnist, path: {}, limit: 256}}", kData),
      fmt::format("inputs.test={{dataset: mnist, path: {}, limit: 100}}", kData),
      "hyperparameters.epochs=2",
      "hyperparameters.lr_schedule=constant",
      "hyperparameters.shards=4",
      "instance_count=1",
      "threads_per_rank=1"};
  ASSERT_TRUE(fit(LOCKSTEP_SOURCE_DIR "/configs/mnist_cnn.yaml", run, small));
  std::filesystem::remove_all(run + "/checkpoints/" + checkpoint_name(4));
  Process resumed(
      {LOCKSTEP_BINARY, "fit", run + "/job.yaml", "--output", run, "--resume", "--set", "threads_per_rank=2"},
      {{"XDG_CACHE_HOME", kTestCache}});
  EXPECT_EQ(resumed.wait(), 78) << resumed.output();
  EXPECT_NE(resumed.output().find("threads_per_rank"), std::string::npos) << resumed.output();
}

}  // namespace
}  // namespace lockstep::testing::shards_test
