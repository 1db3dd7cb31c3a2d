// SPDX-License-Identifier: Apache-2.0
// Training beside PyTorch (tests/golden/make_training.py), and on one rank beside several.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <set>

#include "runtime/checkpoint/safetensors.h"
#include "tests/distributed/fit.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::parity_test {
namespace {

constexpr int64_t kSteps = 100;
constexpr size_t kEarly = 20;  // in so many, what rounding decided has not grown yet

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

// Of the run of a case on so many ranks, 20 steps must be PyTorch's; what is apart later is returned, a line each.
std::string apart_from_pytorch(const Case& c, const nlohmann::json& expected, int ranks) {
  const std::string folder = LOCKSTEP_SOURCE_DIR "/tests/golden/training/";
  const std::string golden = folder + c.net + "-" + c.optimizer;
  TestFolder runs;
  const std::string run = runs.file("run");
  std::vector<std::string> overrides = {"model.init_from=" + golden + "-init.safetensors",
                                        "instance_count=" + std::to_string(ranks)};
  if (c.optimizer == "adamw")
    overrides.emplace_back("hyperparameters.optimizer={name: adamw, lr: 0.002, weight_decay: 0.01}");
  if (!fit(folder + c.net + ".yaml", run, overrides)) return "no training\n";

  std::string apart;
  const auto expect_near = [&](const std::string& what, double got, double wanted, double tolerance) {
    if (!(std::abs(got - wanted) <= tolerance)) apart += fmt::format("{}: {} for {}\n", what, got, wanted);
  };
  const auto losses = step_losses(run, kSteps);
  const std::vector<double> expected_losses = expected.at("losses");
  for (size_t s = 0; s < kEarly; ++s)
    EXPECT_NEAR(losses[s], expected_losses[s], 1e-4 * expected_losses[s])
        << ranks << " ranks, step " << s + 1;
  expect_same_weights(run + "/checkpoints/step-00000020/model.safetensors", golden + "-20.safetensors",
                      c.undetermined);
  for (size_t s = kEarly; s < losses.size() && apart.empty(); ++s)
    expect_near(fmt::format("loss of step {}", s + 1), losses[s], expected_losses[s],
                1e-4 * expected_losses[s]);
  // 80 steps after the weights were compared, and in evaluation mode: ten times the loss's tolerance, and 1
  // image.
  const auto test = test_line(run);
  expect_near("loss of the test", test.at("loss"), expected.at("test_loss"), 1e-3);
  expect_near("accuracy of the test", test.at("accuracy"), expected.at("test_accuracy"), 0.0011);
  return apart;
}

class PyTorchParity : public ::testing::TestWithParam<Case> {};

// A golden run is one that rounding does not carry far in PyTorch, but a maximum that Winograd's rounding decides otherwise
// remains possible: in one of some twenty runs here. Another number of ranks rounds otherwise, so it has a second and a
// third chance there, which a wrong gradient would not pass.
TEST_P(PyTorchParity, LossOfEveryStepAndWeights) {
  const Case& c = GetParam();
  const auto expected = nlohmann::json::parse(
      read_file(LOCKSTEP_SOURCE_DIR "/tests/golden/training/" + c.net + "-" + c.optimizer + ".json"));
  ASSERT_EQ(expected.at("losses").size(), static_cast<size_t>(kSteps));
  ASSERT_LT(expected.at("drift").get<double>(), 3e-5);
  std::string seen;
  for (const int ranks : {c.ranks, 3 - c.ranks, 3}) {
    const std::string apart = apart_from_pytorch(c, expected, ranks);
    if (apart.empty() || HasFailure()) return;
    seen += fmt::format("{} ranks:\n{}", ranks, apart);
  }
  FAIL() << seen;
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

// The largest relative differences from one rank's losses that 2, 3 (43, 43, 42) and 4 ranks have in a step of the same
// global batch, dropout on.
struct Parted {
  double early = 0, late = 0;  // in the first kEarly steps, in the others
};
std::optional<Parted> parted_on_one_to_four_ranks(std::vector<std::string> more) {
  TestFolder runs;
  std::vector<double> one;
  Parted parted;
  more.insert(more.end(),
              {"hyperparameters.steps=" + std::to_string(kSteps), "log_every=1",
               "inputs.test={dataset: mnist, path: " LOCKSTEP_SOURCE_DIR "/configs/data/mnist, limit: 100}"});
  for (int ranks : {1, 2, 3, 4}) {
    const std::string run = runs.file(std::to_string(ranks));
    std::vector<std::string> overrides = more;
    overrides.push_back("instance_count=" + std::to_string(ranks));
    if (!fit(LOCKSTEP_SOURCE_DIR "/configs/mnist_article.yaml", run, overrides)) return std::nullopt;
    const auto losses = step_losses(run, kSteps);
    if (one.empty()) one = losses;
    for (size_t s = 0; s < losses.size(); ++s) {
      double& most = s < kEarly ? parted.early : parted.late;
      most = std::max(most, std::abs(losses[s] - one[s]) / one[s]);
    }
  }
  const auto mean_of_ten = [&](auto from) { return std::accumulate(from, from + 10, 0.0) / 10; };
  EXPECT_LT(mean_of_ten(one.end() - 10), 0.99 * mean_of_ten(one.begin()));  // it does learn
  return parted;
}

// Other sums of the same numbers keep losses together to 1e-7, until a maximum or a ReLU is decided otherwise, which then
// shows as a step to some 1e-5 and grows to 2e-4, at times 8e-4, within 100 steps. With Winograd's convolutions, whose
// rounding is another where a weight differs by its last bit, that happens once in some 50 steps. So one of the seeds has
// to go without for 20 steps, and to stay below 1e-3 for 100. What is wrong with a sum would show with every seed.
void expect_same_losses(const std::vector<std::string>& more) {
  constexpr int kSeeds = 4;  // seven of eight hold: that none of four does, 0.02 %
  std::string seen;
  for (int seed = 1; seed <= kSeeds; ++seed) {
    std::vector<std::string> overrides = more;
    overrides.push_back("hyperparameters.seed=" + std::to_string(seed));
    const auto parted = parted_on_one_to_four_ranks(overrides);
    ASSERT_TRUE(parted);
    EXPECT_LE(parted->early, 1e-4) << "seed " << seed;
    if (parted->early <= 1e-6 && parted->late <= 1e-3) return;
    seen += fmt::format("seed {}: {:.1e} in the first 20 steps, {:.1e} later\n", seed, parted->early,
                        parted->late);
  }
  FAIL() << seen;
}

TEST(RankCounts, SameLossesOnOneToFourRanks) { expect_same_losses({}); }

TEST(RankCounts, SameLossesWithAugmentation) {
  expect_same_losses({"inputs.training.augment={flip: true, crop_padding: 2}"});
}

}  // namespace
}  // namespace lockstep::testing::parity_test
