// SPDX-License-Identifier: Apache-2.0
// Training beside PyTorch (tests/golden/make_training.py), and on one rank beside several.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "runtime/checkpoint/safetensors.h"
#include "tests/distributed/fit.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace {

constexpr int64_t kSteps = 100;

struct Case {
  std::string net, optimizer;
  int ranks;
  // Tensors whose true gradient is zero, so that Adam divides rounding by rounding: the bias before batch
  // norm and the running mean that follows it.
  std::set<std::string> undetermined;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.net << " " << c.optimizer << " " << c.ranks; }

double relative_l2(const StoredTensor& got, const StoredTensor& expected) {
  const size_t n = expected.bytes.size() / sizeof(float);
  double difference = 0, size = 0;
  for (size_t i = 0; i < n; ++i) {
    float a, b;
    std::memcpy(&a, got.bytes.data() + i * sizeof(float), sizeof a);
    std::memcpy(&b, expected.bytes.data() + i * sizeof(float), sizeof b);
    difference += (double{a} - b) * (double{a} - b);
    size += double{b} * b;
  }
  return std::sqrt(difference / size);
}

void expect_same_weights(const std::string& got_path, const std::string& expected_path,
                         const std::set<std::string>& undetermined) {
  const auto got = SafetensorsFile::open(got_path), expected = SafetensorsFile::open(expected_path);
  EXPECT_EQ(got->tensors().size(), expected->tensors().size());
  for (const StoredTensor& e : expected->tensors()) {
    const StoredTensor* g = got->find(e.name);
    ASSERT_TRUE(g) << e.name;
    ASSERT_EQ(g->dtype, e.dtype) << e.name;
    ASSERT_EQ(g->shape, e.shape) << e.name;
    if (e.dtype == "F32") {
      if (!undetermined.contains(e.name)) {
        // What PyTorch in float32 and in float64 are apart is 1e-5; 1e-3 is what the project promises.
        EXPECT_LT(relative_l2(*g, e), 1e-3) << e.name;
      }
    } else {  // num_batches_tracked
      EXPECT_TRUE(std::ranges::equal(g->bytes, e.bytes)) << e.name;
    }
  }
}

class PyTorchParity : public ::testing::TestWithParam<Case> {};

TEST_P(PyTorchParity, LossOfEveryStepAndWeights) {
  const Case& c = GetParam();
  const std::string folder = LOCKSTEP_SOURCE_DIR "/tests/golden/training/";
  const std::string golden = folder + c.net + "-" + c.optimizer;
  const auto expected = nlohmann::json::parse(read_file(golden + ".json"));
  const std::vector<double> expected_losses = expected.at("losses");
  ASSERT_EQ(static_cast<int64_t>(expected_losses.size()), kSteps);
  // The golden run itself must be one that rounding doesn't carry far.
  ASSERT_LT(expected.at("drift").get<double>(), 3e-5);

  TestFolder runs;
  const std::string run = runs.file("run");
  std::vector<std::string> overrides = {"model.init_from=" + golden + "-init.safetensors",
                                        "instance_count=" + std::to_string(c.ranks)};
  if (c.optimizer == "adamw")
    overrides.emplace_back("hyperparameters.optimizer={name: adamw, lr: 0.002, weight_decay: 0.01}");
  ASSERT_TRUE(fit(folder + c.net + ".yaml", run, overrides));

  const auto losses = step_losses(run, kSteps);
  for (size_t s = 0; s < losses.size(); ++s)
    ASSERT_NEAR(losses[s], expected_losses[s], 1e-4 * expected_losses[s]) << "step " << s + 1;
  expect_same_weights(run + "/checkpoints/step-00000020/model.safetensors", golden + "-20.safetensors",
                      c.undetermined);
  // 80 steps after the weights were compared, and in evaluation mode: ten times the loss's tolerance, and 1
  // image.
  const auto test = test_line(run);
  EXPECT_NEAR(test.at("loss").get<double>(), expected.at("test_loss").get<double>(), 1e-3);
  EXPECT_NEAR(test.at("accuracy").get<double>(), expected.at("test_accuracy").get<double>(), 0.0011);
}

const std::set<std::string> kNone, kBehindBatchNorm = {"0.bias", "1.running_mean"};
INSTANTIATE_TEST_SUITE_P(
    Golden, PyTorchParity,
    ::testing::Values(Case{"convnet", "sgd", 2, kNone}, Case{"convnet", "adamw", 1, kNone},
                      Case{"convnet_dropout", "sgd", 1, kNone}, Case{"convnet_dropout", "adamw", 2, kNone},
                      Case{"layers", "sgd", 2, kNone}, Case{"layers", "adamw", 1, kBehindBatchNorm}),
    [](const auto& test) {
      return test.param.net + "_" + test.param.optimizer + "_" + std::to_string(test.param.ranks);
    });

// The largest relative difference from one rank's losses that 2, 3 (43, 43, 42) and 4 ranks have in a step of
// the same global batch, dropout on; from the 20th step on. Before, they must agree within 1e-5.
double parted_on_one_to_four_ranks(std::vector<std::string> more) {
  TestFolder runs;
  std::vector<double> one;
  double most = 0;
  more.insert(more.end(),
              {"hyperparameters.steps=" + std::to_string(kSteps), "log_every=1",
               "inputs.test={dataset: mnist, path: " LOCKSTEP_SOURCE_DIR "/configs/data/mnist, limit: 100}"});
  for (int ranks : {1, 2, 3, 4}) {
    const std::string run = runs.file(std::to_string(ranks));
    std::vector<std::string> overrides = more;
    overrides.push_back("instance_count=" + std::to_string(ranks));
    if (!fit(LOCKSTEP_SOURCE_DIR "/configs/mnist_article.yaml", run, overrides)) return INFINITY;
    const auto losses = step_losses(run, kSteps);
    if (one.empty()) one = losses;
    for (size_t s = 0; s < losses.size(); ++s) {
      const double parted = std::abs(losses[s] - one[s]) / one[s];
      if (s < 20)
        EXPECT_LE(parted, 1e-5) << ranks << " ranks, step " << s + 1;
      else
        most = std::max(most, parted);
    }
  }
  EXPECT_LT(one.back(), 0.97 * one.front());  // it does learn
  return most;
}

// Other sums of the same numbers part slowly, until a maximum or a ReLU is decided otherwise, which then
// shows as a step to some 2e-4. Within 100 steps that happens with one seed in four or so; so one of three
// seeds has to stay below. What is wrong with a sum would show with every seed.
void expect_same_losses(const std::vector<std::string>& more) {
  double least = INFINITY;
  for (int seed = 1; seed <= 3 && least > 1e-4 && !::testing::Test::HasFailure(); ++seed) {
    std::vector<std::string> overrides = more;
    overrides.push_back("hyperparameters.seed=" + std::to_string(seed));
    least = std::min(least, parted_on_one_to_four_ranks(overrides));
  }
  EXPECT_LE(least, 1e-4);
}

TEST(RankCounts, SameLossesOnOneToFourRanks) { expect_same_losses({}); }

TEST(RankCounts, SameLossesWithAugmentation) {
  expect_same_losses({"inputs.training.augment={flip: true, crop_padding: 2}"});
}

}  // namespace
}  // namespace lockstep::testing
