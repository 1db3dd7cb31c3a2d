// SPDX-License-Identifier: Apache-2.0
// Training that ends early: at the same step however many ranks there are, and however often it was interrupted.
#include <filesystem>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/telemetry/run_folder.h"
#include "tests/distributed/fit.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::early_stop_test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// The rate is too high to get better at every look.
constexpr const char* kEarlyJob = R"(
job_name: early
threads_per_rank: 1
model: {layers: [flatten, {linear: {out_features: 24}}, relu, {linear: {out_features: 10}}]}
inputs:
  training: {dataset: mnist, path: DATA, limit: 320}
  test: {dataset: mnist, path: DATA, limit: 100}
validation_fraction: 0.2
hyperparameters: {steps: 200, global_batch_size: 32, shards: 2, optimizer: {name: sgd, lr: 0.5, momentum: 0.9}}
checkpoint: {every_steps: 5, keep: 0}
log_every: 1
)";

class StopsEarly : public ::testing::Test {
 protected:
  StopsEarly() {
    std::string text = kEarlyJob;
    for (size_t at; (at = text.find("DATA")) != std::string::npos;)
      text.replace(at, 4, LOCKSTEP_SOURCE_DIR "/configs/data/mnist");
    write_file(job_, text);
  }
  Ended resume(const std::string& run_folder, const std::vector<std::string>& overrides) const {
    std::vector<std::string> command = {LOCKSTEP_BINARY, "fit", job_, "--output", run_folder, "--resume"};
    for (const std::string& o : overrides) command.insert(command.end(), {"--set", o});
    return run(command, {{"XDG_CACHE_HOME", kTestCache}});
  }
  static std::string weights(const std::string& run_folder) {
    return read_file(run_folder + "/model.safetensors");
  }
  static std::vector<json> lines(const std::string& run_folder, const std::string& split) {
    std::vector<json> found;
    std::istringstream in(read_file(run_folder + "/metrics.jsonl"));
    for (std::string line; std::getline(in, line);)
      if (json entry = json::parse(line); entry.at("split") == split) found.push_back(entry);
    return found;
  }

  TestFolder folder_;
  const std::string job_ = folder_.file("job.yaml");
};

TEST_F(StopsEarly, OutOfPatienceAtTheSameStepOnAnyNumberOfRanksAndWhenResumed) {
  const std::string rule = "stop={metric: validation_loss, patience: 3, every_steps: 4, min_delta: 0.01}";
  const std::string one = folder_.file("one"), two = folder_.file("two");
  ASSERT_TRUE(fit(job_, one, {rule, "instance_count=1"}));
  ASSERT_TRUE(fit(job_, two, {rule, "instance_count=2"}));
  const Status end = read_status(one);
  ASSERT_GT(end.step, 12);
  ASSERT_LT(end.step, 200);
  EXPECT_EQ(end.step % 4, 0);
  EXPECT_EQ(end.state, "completed");
  EXPECT_NE(end.cause.find("stopped early: validation_loss has not got better"), std::string::npos)
      << end.cause;
  EXPECT_EQ(read_status(two).step, end.step);
  EXPECT_EQ(read_status(two).cause, end.cause);
  EXPECT_EQ(weights(one), weights(two));
  EXPECT_NE(read_file(one + "/log.txt").find("stopped early at step"), std::string::npos);
  // By its own metrics: the best look, then three that were no better by more than 0.01.
  double best = 1e9;
  int without = 0;
  for (const json& look : lines(one, "validation")) {
    if (look.at("step").get<int64_t>() % 4 != 0) continue;  // an epoch's end
    EXPECT_LT(without, 3);
    const double loss = look.at("loss");
    if (loss < best - 0.01)
      best = loss, without = 0;
    else
      ++without;
  }
  EXPECT_EQ(without, 3);
  EXPECT_EQ(lines(one, "training").size(), static_cast<size_t>(end.step)) << "no step after the stop";
  EXPECT_EQ(lines(one, "test").size(), 1u);

  // Stopped somewhere within its patience, on the other number of ranks.
  for (const std::string& checkpoint : list_checkpoints(two))
    if (std::stoll(checkpoint.substr(checkpoint.rfind('-') + 1)) > end.step - 6) fs::remove_all(checkpoint);
  Status before = read_status(two);
  before.state = "interrupted";
  write_status(two, before);
  const Ended resumed = resume(two, {rule, "instance_count=1"});
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_NE(resumed.output.find("Stopped early"), std::string::npos) << resumed.output;
  EXPECT_EQ(read_status(two).step, end.step);
  EXPECT_EQ(weights(one), weights(two));

  // It has come to its end: more steps are for a rule that lets them be.
  const Ended again = resume(two, {rule, "instance_count=1", "hyperparameters.steps=300"});
  EXPECT_EQ(again.code, 0) << again.output;
  EXPECT_NE(again.output.find("is finished"), std::string::npos) << again.output;
}

TEST_F(StopsEarly, AtAnAccuracyOfTheTestSetLookedAtEverySomeSteps) {
  const std::string run_folder = folder_.file("run");
  ASSERT_TRUE(fit(job_, run_folder,
                  {"stop={metric: test_accuracy, at: 0.5, every_steps: 3}", "instance_count=2",
                   "hyperparameters.optimizer={name: sgd, lr: 0.1}", "checkpoint={keep: 1}"}));
  const auto looks = lines(run_folder, "test");
  const Status end = read_status(run_folder);
  ASSERT_FALSE(looks.empty());
  for (size_t i = 0; i < looks.size(); ++i) {
    EXPECT_EQ(looks[i].at("step"), 3 * static_cast<int64_t>(i + 1)) << "each look once";
    EXPECT_EQ(looks[i].at("accuracy").get<double>() >= 0.5, i + 1 == looks.size());
  }
  EXPECT_EQ(looks.back().at("step"), end.step);
  EXPECT_LT(end.step, 200);
  EXPECT_EQ(end.steps, 200);
  EXPECT_EQ(list_checkpoints(run_folder).back(), run_folder + "/checkpoints/" + checkpoint_name(end.step));
}

#ifdef LOCKSTEP_STANDIN
// A device that starts the next step before it has read the results of the last: not over a look.
TEST_F(StopsEarly, OnADeviceThatRunsAhead) {
  const std::string run_folder = folder_.file("run");
  const Ended ended = run({LOCKSTEP_STANDIN, "fit", job_, "--output", run_folder, "--set", "device=cuda",
                           "--set", "stop={metric: validation_accuracy, at: 0.2, every_steps: 3}", "--set",
                           "hyperparameters.optimizer={name: sgd, lr: 0.1}"},
                          {{"XDG_CACHE_HOME", folder_.file("cache")}});
  ASSERT_EQ(ended.code, 0) << ended.output;
  const int64_t step = read_status(run_folder).step;
  EXPECT_LT(step, 200);
  EXPECT_EQ(step % 3, 0);
  EXPECT_EQ(lines(run_folder, "training").size(), static_cast<size_t>(step));
}
#endif

}  // namespace
}  // namespace lockstep::testing::early_stop_test
