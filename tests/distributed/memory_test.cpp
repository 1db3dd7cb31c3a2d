// SPDX-License-Identifier: Apache-2.0
// What `lockstep plan` says a rank needs, against what a real run of the same job allocates at most.
#include <gtest/gtest.h>

#include "tests/distributed/fit.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::memory_test {
namespace {

using nlohmann::json;

constexpr const char* kData = "dataset: mnist, path: " LOCKSTEP_SOURCE_DIR "/configs/data/mnist";

struct Case {
  std::string name, config;
  std::vector<std::string> overrides;
  int test_images = 600;  // enough for evaluation's full batch on each of three ranks
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class PlannedMemory : public ::testing::TestWithParam<Case> {};

TEST_P(PlannedMemory, IsWhatARunAllocates) {
  const TestFolder folder;
  const std::string config = LOCKSTEP_SOURCE_DIR "/configs/" + GetParam().config;
  std::vector<std::string> plan = {LOCKSTEP_BINARY, "plan", config, "--json"};
  std::vector<std::string> overrides = GetParam().overrides;
  overrides.push_back(std::string("inputs.training={") + kData +
                      ", limit: 600, normalize: {mean: 0.1307, std: 0.3081}}");
  overrides.push_back(std::string("inputs.test={") + kData +
                      ", limit: " + std::to_string(GetParam().test_images) + "}");
  overrides.emplace_back("hyperparameters.epochs=1");
  overrides.emplace_back(
      "threads_per_rank=1");  // more, on cores that others use as well, wait long for each other
  for (const std::string& o : overrides) plan.insert(plan.end(), {"--set", o});
  // The plan chooses the kernels, and the run takes them: it times none anew.
  const std::string run_folder = folder.file("run"), cache = folder.file("cache");
  const auto planned = run(plan, {{"XDG_CACHE_HOME", cache}});
  ASSERT_EQ(planned.code, 0) << planned.output;
  const auto peak = json::parse(planned.output).at("memory").at("peak").get<double>();
  const std::string choices = cache + "/lockstep/kernels.json", chosen = read_file(choices);
  ASSERT_TRUE(fit(config, run_folder, overrides, cache));
  EXPECT_EQ(read_file(choices), chosen);
  const std::string log = read_file(run_folder + "/log.txt"), words = "memory of tensors: at most ";
  const size_t at = log.find(words);
  ASSERT_NE(at, std::string::npos) << log;
  const double allocated = std::stod(log.substr(at + words.size()));
  EXPECT_GT(allocated, 1e5);
  // Exact but for the floats of an evaluation's metrics; 5 % is what the project promises.
  EXPECT_NEAR(peak, allocated, 0.05 * allocated);
  // The run folder's own plan says the same.
  const json stored = json::parse(read_file(run_folder + "/plan.json"));
  EXPECT_NEAR(stored.at("memory").at("peak").get<double>(), allocated, 0.05 * allocated);
}

INSTANTIATE_TEST_SUITE_P(Jobs, PlannedMemory,
                         ::testing::Values(Case{"two_ranks", "mnist_cnn.yaml", {}},
                                           Case{"bf16_and_average",
                                                "mnist_cnn.yaml",
                                                {"hyperparameters.precision=bf16",
                                                 "hyperparameters.ema={decay: 0.99}"}},
                                           Case{"three_ranks_uneven", "mnist_cnn.yaml", {"instance_count=3"}},
                                           Case{"batch_norm_and_validation", "mnist_layers.yaml", {}},
                                           // An evaluation's batch is larger than training's, ...
                                           Case{"small_batch",
                                                "mnist_layers.yaml",
                                                {"instance_count=1", "hyperparameters.global_batch_size=8"}},
                                           // ... but not that of a small set.
                                           Case{"small_batch_small_test",
                                                "mnist_layers.yaml",
                                                {"hyperparameters.global_batch_size=16",
                                                 "validation_fraction=0", "checkpoint={every_epochs: 1}"},
                                                41},
                                           Case{"accumulation",
                                                "mnist_layers.yaml",
                                                {"instance_count=1", "hyperparameters.global_batch_size=256",
                                                 "hyperparameters.gradient_accumulation=2"}}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace lockstep::testing::memory_test
