// SPDX-License-Identifier: Apache-2.0
// Numbers that a user takes for right: of batches that have empty parts or one value a channel, and of a
// training that leaves what is not finite.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/data/dataset.h"
#include "tests/support/files.h"
#include "tests/support/idx.h"
#include "tests/support/process.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::numbers_test {
namespace {

namespace fs = std::filesystem;

class NumbersTest : public ::testing::Test {
 protected:
  // `inputs`: keys beside the training set's, beginning with a comma.
  void write_job(const std::string& layers, const std::string& hyperparameters,
                 const std::string& inputs = "") {
    write_file(file("job.yaml"), fmt::format(R"(job_name: numbers
device: cpu
threads_per_rank: 1
model: {{layers: {}}}
inputs: {{training: {{dataset: idx, path: train-images-idx3-ubyte}}{}}}
hyperparameters: {{{}}}
checkpoint: {{every_steps: 1, keep: 0}}
)",
                                             layers, inputs, hyperparameters));
  }
  void write_set(uint32_t side, const std::vector<GreyImage>& set, const std::string& name = "train") {
    write_idx(file(name), side, set);
  }
  std::string file(const std::string& name) const { return folder_.file(name); }

  Ended lockstep(std::vector<std::string> words) const {
    words.insert(words.begin(), LOCKSTEP_BINARY);
    return run(words, {{"XDG_CACHE_HOME", file("cache")}});
  }
  // Into the folder of that name.
  Ended fit(const std::string& name, const std::vector<std::string>& overrides = {}) const {
    std::vector<std::string> words = {"fit", file("job.yaml"), "--output", file(name)};
    for (const std::string& o : overrides) words.insert(words.end(), {"--set", o});
    return lockstep(words);
  }
  static void expect(const Ended& ended, int code, const std::vector<std::string>& words = {}) {
    EXPECT_EQ(ended.code, code) << ended.output;
    for (const std::string& word : words)
      EXPECT_NE(ended.output.find(word), std::string::npos) << "no \"" << word << "\" in: " << ended.output;
  }

  template <class T = float>
  std::vector<T> tensor(const std::string& name, const std::string& of) const {
    const auto weights = open_model(file(name));
    const StoredTensor* t = weights->find(of);
    if (!t) throw std::runtime_error("no " + of);
    std::vector<T> values(t->bytes.size() / sizeof(T));
    std::memcpy(values.data(), t->bytes.data(), t->bytes.size());
    return values;
  }

  TestFolder folder_;
};

constexpr const char* kNorm = "[batch_norm2d, flatten, {linear: {out_features: 2}}]";

// Five micro-batches have samples. The images are all ones: mean 1, variance 0.
TEST_F(NumbersTest, EmptyMicroBatchesLeaveStatisticsAlone) {
  std::vector<GreyImage> set(65, {255, 0});
  set[1].label = 1;
  write_set(4, set);
  write_job(kNorm,
            "epochs: 1, global_batch_size: 64, gradient_accumulation: 4, optimizer: {name: sgd, lr: 0}");
  for (const std::string ranks : {"1", "2", "3"}) {
    expect(fit("run" + ranks, {"instance_count=" + ranks}), 0);
    const double kept = std::pow(0.9, 5);
    EXPECT_NEAR(tensor("run" + ranks, "0.running_mean")[0], 1 - kept, 1e-6) << ranks;
    EXPECT_NEAR(tensor("run" + ranks, "0.running_var")[0], kept, 1e-6) << ranks;
    EXPECT_EQ(tensor<int64_t>("run" + ranks, "0.num_batches_tracked")[0], 5) << ranks;
  }
}

// Of 66 samples two are left for the second step: of two ranks and four micro-batches rank 1 has none of them.
TEST_F(NumbersTest, StatisticsCoverRanksWithoutSamplesToo) {
  std::vector<GreyImage> set;
  for (int i = 0; i < 66; ++i) set.push_back({static_cast<uint8_t>(3 * i), static_cast<uint8_t>(i % 2)});
  write_set(4, set);
  // In the set's order; without weights that change, one rank with the same micro-batches is the same sum.
  write_job(kNorm,
            "epochs: 1, shuffle: false, global_batch_size: 64, gradient_accumulation: 4, optimizer: {name: "
            "sgd, lr: 0}");
  expect(fit("two", {"instance_count=2"}), 0);
  // By hand: rank r's micro-batch m are samples [8 (4 r + m), + 8); then sample 64 and sample 65 alone.
  double mean = 0, variance = 1;
  const auto add = [&](const std::vector<int>& samples) {
    double sum = 0, square = 0;
    for (int i : samples) sum += 3 * i / 255.0;
    const double m = sum / static_cast<double>(samples.size()),
                 values = 16.0 * static_cast<double>(samples.size());
    for (int i : samples) square += 16 * (3 * i / 255.0 - m) * (3 * i / 255.0 - m);
    mean = 0.9 * mean + 0.1 * m, variance = 0.9 * variance + 0.1 * square / (values - 1);
  };
  for (int m = 0; m < 4; ++m) {
    std::vector<int> samples;
    for (int rank = 0; rank < 2; ++rank)
      for (int i = 0; i < 8; ++i) samples.push_back(8 * (4 * rank + m) + i);
    add(samples);
  }
  add({64}), add({65});
  EXPECT_NEAR(tensor("two", "0.running_mean")[0], mean, 1e-5);
  EXPECT_NEAR(tensor("two", "0.running_var")[0], variance, 1e-5);
  EXPECT_EQ(tensor<int64_t>("two", "0.num_batches_tracked")[0], 6);
}

// Masks are the samples', whatever parts a batch is computed in.
TEST_F(NumbersTest, EmptyMicroBatchesDrawNoMasks) {
  std::vector<GreyImage> set;
  for (int i = 0; i < 33; ++i) set.push_back({static_cast<uint8_t>(7 * i), static_cast<uint8_t>(i % 2)});
  write_set(4, set);
  write_job("[flatten, {linear: {out_features: 8}}, relu, {dropout: 0.5}, {linear: {out_features: 2}}]",
            "epochs: 2, global_batch_size: 32, optimizer: {name: sgd, lr: 0.1}");
  expect(fit("whole"), 0);
  expect(fit("parts", {"hyperparameters.gradient_accumulation=4"}), 0);
  const auto whole = tensor("whole", "1.weight"), parts = tensor("parts", "1.weight");
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_NEAR(whole[i], parts[i], 1e-6);
}

class OneValueTest : public NumbersTest {
 protected:
  // A 4x4 image becomes one pixel.
  void SetUp() override {
    std::vector<GreyImage> set;
    for (int i = 0; i < 9; ++i) set.push_back({static_cast<uint8_t>(25 * i), static_cast<uint8_t>(i % 2)});
    write_set(4, set);
    write_job(
        "[{conv2d: {out_channels: 4, kernel: 4}}, {batch_norm2d: {name: norm}}, relu, flatten, {linear: "
        "{out_features: 2}}]",
        "epochs: 1, global_batch_size: 8, optimizer: {name: sgd, lr: 0}");
  }
  Ended check(const std::vector<std::string>& overrides = {}) const {
    std::vector<std::string> words = {"check", file("job.yaml")};
    for (const std::string& o : overrides) words.insert(words.end(), {"--set", o});
    return lockstep(words);
  }
};

TEST_F(OneValueTest, TheLastBatchIsWarnedOfAndLeavesTheVariance) {
  expect(check(), 0, {"warning: the last batch", "norm", "drop_last"});
  expect(fit("run"), 0, {"warning: the last batch", "drop_last"});
  expect(fit("dropped", {"hyperparameters.drop_last=true"}), 0);
  EXPECT_EQ(tensor("run", "norm.running_var"), tensor("dropped", "norm.running_var"));
  EXPECT_NE(tensor("run", "norm.running_mean"), tensor("dropped", "norm.running_mean"));
}

TEST_F(OneValueTest, WholeBatchesOfOneAreRefused) {
  const std::string one = "hyperparameters.global_batch_size=1";
  const std::vector<std::string> words = {"error[E_BATCH_NORM]", "layer=norm", "one value a channel"};
  expect(check({one}), 78, words);
  expect(fit("run", {one}), 78, words);
  EXPECT_FALSE(fs::exists(file("run")));
  expect(lockstep({"plan", file("job.yaml"), "--set", one}), 78, words);
  // Micro-batches count, over all ranks, and a step whose parts differ in size by its smallest.
  expect(check({"hyperparameters.gradient_accumulation=8"}), 78, {"micro-batch"});
  expect(check({"hyperparameters.gradient_accumulation=5"}), 78, {"micro-batch"});
  // The only step is a short one.
  expect(check({"inputs.training.limit=1"}), 78, words);
}

TEST_F(OneValueTest, TwoValuesAreEnough) {
  const auto says_nothing = [](const Ended& ended) {
    expect(ended, 0);
    EXPECT_EQ(ended.output.find("batch norm"), std::string::npos) << ended.output;
  };
  says_nothing(check({"hyperparameters.drop_last=true"}));
  // One sample a rank.
  says_nothing(
      check({"hyperparameters.drop_last=true", "hyperparameters.global_batch_size=2", "instance_count=2"}));
  // More pixels.
  write_job("[{conv2d: {out_channels: 4, kernel: 3}}, batch_norm2d, flatten, {linear: {out_features: 2}}]",
            "epochs: 1, global_batch_size: 1, optimizer: {name: sgd, lr: 0}");
  says_nothing(check());
  // The short batch is never reached.
  write_job("[{conv2d: {out_channels: 4, kernel: 4}}, batch_norm2d, flatten, {linear: {out_features: 2}}]",
            "steps: 1, global_batch_size: 8, optimizer: {name: sgd, lr: 0}");
  says_nothing(check());
}

// Equal images of two classes: the gradient never ends. lr is multiplied by 10^6 in each step, so that the
// weights are finite, and the loss, until the last update.
class NotFiniteTest : public NumbersTest {
 protected:
  void SetUp() override {
    std::vector<GreyImage> set;
    for (int i = 0; i < 8; ++i) set.push_back({1, static_cast<uint8_t>(i % 2)});
    write_set(4, set);
    write_job("[flatten, {linear: {out_features: 2, name: last}}]",
              "steps: 7, global_batch_size: 8, optimizer: {name: sgd, lr: 1e6}, lr_schedule: {name: step, "
              "step_size: 1, gamma: 1e6}");
  }
};

TEST_F(NotFiniteTest, WeightsAfterTheLastUpdate) {
  for (const std::string ranks : {"1", "2"}) {
    const std::string run = "run" + ranks;
    expect(fit(run, {"instance_count=" + ranks}), 80, {"error[E_NOT_FINITE]", "step=7", "tensor=last."});
    const auto status = nlohmann::json::parse(read_file(file(run + "/status.json")));
    EXPECT_EQ(status.at("state"), "failed");
    EXPECT_EQ(status.at("code"), 80);
    EXPECT_EQ(status.at("step"), 7);
    EXPECT_TRUE(fs::exists(file(run + "/checkpoints/step-00000006")));
    EXPECT_FALSE(fs::exists(file(run + "/checkpoints/step-00000007")));
    EXPECT_FALSE(fs::exists(file(run + "/model.safetensors")));
    for (float w : tensor(run, "last.weight")) EXPECT_TRUE(std::isfinite(w));
  }
}

// A step earlier the weights hold, but brighter pixels are too much for them.
TEST_F(NotFiniteTest, LossOfAnEvaluation) {
  write_set(4, {{255, 0}, {255, 1}}, "bright");
  write_job("[flatten, {linear: {out_features: 2, name: last}}]",
            "steps: 6, global_batch_size: 8, optimizer: {name: sgd, lr: 1e6}, lr_schedule: {name: step, "
            "step_size: 1, gamma: 1e6}",
            ", test: {dataset: idx, path: bright-images-idx3-ubyte}");
  for (const std::string ranks : {"1", "2"}) {
    const std::string run = "run" + ranks;
    expect(fit(run, {"instance_count=" + ranks, "inputs.training.normalize.mean=0",
                     "inputs.training.normalize.std=0.005"}),
           80, {"error[E_NOT_FINITE]", "step=6", "the loss over 2 images"});
    EXPECT_TRUE(fs::exists(file(run + "/checkpoints/step-00000006")));
    EXPECT_FALSE(fs::exists(file(run + "/model.safetensors")));
    expect(lockstep({"evaluate", file(run)}), 80, {"error[E_NOT_FINITE]", "the loss over 2 images"});
    expect(lockstep({"evaluate", file(run), "--split", "training"}), 0);
  }
}

// The average and Adam's squares are as much of a model as its weights.
TEST_F(NotFiniteTest, OptimizerState) {
  // Pixels of 10^25: the gradient's square is beyond F32, which leaves weight and loss finite.
  write_job("[flatten, {linear: {out_features: 2, name: last}}]",
            "steps: 2, global_batch_size: 8, ema: {decay: 0.9}, optimizer: {name: adam, lr: 1e-6}", "");
  expect(fit("run", {"inputs.training.normalize.mean=0", "inputs.training.normalize.std=1e-27"}), 80,
         {"error[E_NOT_FINITE]", "step=1 ", "tensor=v.last."});
  EXPECT_FALSE(fs::exists(file("run/model.safetensors")));
}

TEST_F(NotFiniteTest, WeightsToStartFrom) {
  const std::vector<float> weight(32, 1), bias = {0, std::numeric_limits<float>::quiet_NaN()};
  const std::vector<StoredTensor> tensors = {
      {"last.weight", "F32", {2, 16}, std::as_bytes(std::span(weight))},
      {"last.bias", "F32", {2}, std::as_bytes(std::span(bias))}};
  export_model(file("start.safetensors"), tensors);
  const std::string from = "model.init_from=" + file("start.safetensors");
  const std::vector<std::string> words = {"error[E_NOT_FINITE]", "start.safetensors", "tensor=last.bias",
                                          "key=model.init_from"};
  expect(fit("run", {from}), 65, words);
  expect(lockstep({"check", file("job.yaml"), "--set", from}), 65, words);
}

TEST_F(NotFiniteTest, Predictions) {
  expect(fit("run", {"hyperparameters.steps=6", "inputs.training.normalize.mean=0",
                     "inputs.training.normalize.std=0.001"}),
         0);
  Image picture{1, 4, 4, std::vector<uint8_t>(16, 255)};
  write_png(file("white.png"), picture);
  expect(lockstep({"predict", file("run"), file("white.png")}), 80, {"error[E_NOT_FINITE]", "white.png"});
}

}  // namespace
}  // namespace lockstep::testing::numbers_test
