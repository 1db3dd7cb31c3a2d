// SPDX-License-Identifier: Apache-2.0
// Images that are larger than the model's: training sees random windows, everything else the middle.
#include <gtest/gtest.h>

#include "tests/distributed/fit.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::random_crop_test {
namespace {

using nlohmann::json;

const std::string kJob = R"(job_name: windows
model: {layers: [{conv2d: {out_channels: 4, kernel: 3}}, relu, flatten, {linear: {out_features: 10}}]}
inputs:
  training: {dataset: mnist, path: )" LOCKSTEP_SOURCE_DIR
                         R"(/configs/data/mnist, limit: 400, augment: {random_crop: [24, 20]}}
  test: {limit: 150}
validation_fraction: 0.25
hyperparameters: {steps: 12, global_batch_size: 16, optimizer: {name: adam, lr: 0.01}}
checkpoint: {every_steps: 6}
log_every: 1
)";

json answer(std::vector<std::string> command) {
  command.insert(command.begin(), LOCKSTEP_BINARY);
  command.push_back("--json");
  const auto ended = run(command, {{"XDG_CACHE_HOME", kTestCache}});
  EXPECT_EQ(ended.code, 0) << ended.output;
  return ended.code == 0 ? json::parse(ended.output) : json();
}

TEST(RandomCrop, TrainsOnWindowsAndIsTestedOnTheMiddle) {
  const TestFolder folder;
  const std::string job = folder.file("job.yaml"), one = folder.file("one"), two = folder.file("two");
  write_file(job, kJob);
  ASSERT_TRUE(fit(job, one, {"instance_count=1"}));
  ASSERT_TRUE(fit(job, two, {"instance_count=2"}));
  const auto losses = step_losses(one, 12), others = step_losses(two, 12);
  for (size_t i = 0; i < losses.size(); ++i)
    EXPECT_NEAR(others[i], losses[i], 1e-4 * losses[i]) << "step " << i + 1;  // sums in another order

  // 4 filters over 22 x 18 windows.
  const json plan = answer({"plan", job});
  EXPECT_EQ(plan.at("parameters"), 4 * 9 + 4 + 4 * 22 * 18 * 10 + 10);
  const json test = answer({"evaluate", one});
  EXPECT_EQ(test.at("count"), 150);
  EXPECT_NEAR(test.at("loss"), test_line(one).at("loss"), 1e-5 * double{test.at("loss")});
  EXPECT_EQ(answer({"evaluate", one, "--split", "validation"}).at("count"), 100);
  EXPECT_EQ(answer({"evaluate", one, "--split", "training"}).at("count"), 300);
  // A digit of 28 x 28.
  EXPECT_EQ(answer({"predict", one, LOCKSTEP_SOURCE_DIR "/tests/golden/digits/test-0.png"})
                .at("probabilities")
                .size(),
            10u);
}

TEST(RandomCrop, WindowsThatCannotBeAndOtherWindowsOnResume) {
  const TestFolder folder;
  const std::string job = folder.file("job.yaml"), run_folder = folder.file("run");
  write_file(job, kJob);
  const auto large = run({LOCKSTEP_BINARY, "check", job, "--set", "inputs.training.augment.random_crop=29"});
  EXPECT_EQ(large.code, 78) << large.output;
  EXPECT_NE(large.output.find("random_crop 29x29 is larger than the images, 28x28"), std::string::npos)
      << large.output;
  ASSERT_TRUE(fit(job, run_folder, {"instance_count=1", "hyperparameters.steps=6"}));
  const auto resumed = run({LOCKSTEP_BINARY, "fit", job, "--resume", "--output", run_folder, "--set",
                            "instance_count=1", "--set", "inputs.training.augment={flip: false}"});
  EXPECT_EQ(resumed.code, 78) << resumed.output;
  EXPECT_NE(resumed.output.find("random_crop [24, 20], now unset"), std::string::npos) << resumed.output;
}

}  // namespace
}  // namespace lockstep::testing::random_crop_test
