// SPDX-License-Identifier: Apache-2.0
// The moving average of the parameters: what the test at the end, model.safetensors and `evaluate` go by.
#include <gtest/gtest.h>

#include "runtime/checkpoint/checkpoint.h"
#include "tests/distributed/fit.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::ema_test {
namespace {

using nlohmann::json;

class Ema : public ::testing::TestWithParam<const char*> {};

TEST_P(Ema, IsWhatIsTestedStoredAndEvaluated) {
  const TestFolder runs;
  const auto train = [&](const std::string& name, const std::string& decay) {
    std::vector<std::string> settings = {
        "instance_count=2", "hyperparameters.steps=12", "hyperparameters.global_batch_size=16",
        std::string("hyperparameters.precision=") + GetParam(),
        ("inputs.test={dataset: mnist, path: " LOCKSTEP_SOURCE_DIR "/configs/data/mnist, limit: 200}")};
    if (!decay.empty()) settings.push_back("hyperparameters.ema={decay: " + decay + "}");
    EXPECT_TRUE(fit(LOCKSTEP_SOURCE_DIR "/configs/mnist_article.yaml", runs.file(name), settings));
    return load_checkpoint(runs.file(name) + "/checkpoints/" + checkpoint_name(12));
  };
  const auto without = train("without", ""), with = train("with", "0.9"), none = train("none", "0");
  const auto bytes = [](const auto& file, const std::string& name) {
    const StoredTensor* t = file->find(name);
    EXPECT_TRUE(t) << name;
    return t ? std::vector<std::byte>(t->bytes.begin(), t->bytes.end()) : std::vector<std::byte>();
  };
  for (const StoredTensor& t : without.model->tensors()) {
    // Training itself doesn't see the average; with decay 0 it is the parameters.
    EXPECT_EQ(bytes(with.state, "raw." + t.name), bytes(without.model, t.name)) << t.name;
    EXPECT_NE(bytes(with.model, t.name), bytes(without.model, t.name)) << t.name;
    EXPECT_EQ(bytes(open_model(runs.file("with")), t.name), bytes(with.model, t.name)) << t.name;
  }
  EXPECT_NEAR(test_line(runs.file("none")).at("loss"), test_line(runs.file("without")).at("loss"), 1e-6);
  const double tested = test_line(runs.file("with")).at("loss");
  EXPECT_GT(std::abs(tested - double{test_line(runs.file("without")).at("loss")}), 1e-4);
  const auto evaluated =
      run({LOCKSTEP_BINARY, "evaluate", runs.file("with"), "--json"}, {{"XDG_CACHE_HOME", kTestCache}});
  ASSERT_EQ(evaluated.code, 0) << evaluated.output;
  // The same weights on one rank instead of two: other kernels and sums, in bf16 rounded elsewhere.
  EXPECT_NEAR(json::parse(evaluated.output).at("loss"), tested,
              (GetParam() == std::string("bf16") ? 1e-3 : 1e-5) * tested);
}

INSTANTIATE_TEST_SUITE_P(Precisions, Ema, ::testing::Values("fp32", "bf16"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace lockstep::testing::ema_test
