// SPDX-License-Identifier: Apache-2.0
// The whole training path on one rank, with data made here: graph, kernels, loader, optimizer, checkpoint.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "models/model.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/training/trainer.h"

namespace lockstep::train_test {
namespace {

class TrainTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / fmt::format("lockstep-train-{}", ::getpid());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  TrainerOptions options(const std::string& run, int64_t steps) {
    const auto path = folder_ / run;
    std::filesystem::create_directories(path);
    TrainerOptions o;
    ModelSpec spec;
    spec.name = "mnist_convnet";
    o.objective = [spec](const InputShape& input) { return make_objective(spec, input, {}); };
    o.training_data.dataset = "mnist";
    o.training_data.path = LOCKSTEP_SOURCE_DIR "/configs/data/mnist";
    o.training_data.split = "training";
    o.training_data.limit = 1000;
    o.config.steps = steps;
    o.config.global_batch_size = 64;
    o.config.optimizer.lr = 0.05;
    o.config.optimizer.momentum = 0.9;
    o.config.seed = 3;
    o.checkpoint.keep = 0;
    o.log_every = 1;
    o.kernels.threads = 1;
    o.kernels.cache_file = (folder_ / "kernels.json").string();  // one choice for all runs of a test
    o.run_folder = path;
    o.job_hash = "x";
    return o;
  }

  static std::vector<char> bytes(const std::filesystem::path& p) {
    std::ifstream in(p, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::filesystem::path folder_;
};

TEST_F(TrainTest, LossFallsAndStopAndResumeGiveTheSameBits) {
  auto comm = make_self_communicator();
  auto whole = options("whole", 24);
  train(whole, *comm);

  // 1,000 samples: the sixteenth batch of each epoch is short, and the stop comes in the second epoch.
  auto first = options("parts", 24);
  int64_t done = 0;
  first.on_step = [&](int64_t s, int64_t) { done = s; };
  first.stop_requested = [&] { return done >= 18; };
  const auto interrupted = train(first, *comm);
  EXPECT_TRUE(interrupted.interrupted);
  EXPECT_EQ(interrupted.step, 19);
  auto second = options("parts", 24);
  second.resume = true;
  const auto finished = train(second, *comm);
  EXPECT_FALSE(finished.interrupted);
  EXPECT_EQ(finished.step, 24);
  const auto a = bytes(folder_ / "whole/model.safetensors"), b = bytes(folder_ / "parts/model.safetensors");
  ASSERT_FALSE(a.empty());
  EXPECT_TRUE(a == b) << "a resumed run ended with other weights";

  std::ifstream metrics(folder_ / "whole/metrics.jsonl");
  std::vector<double> losses;
  for (std::string line; std::getline(metrics, line);)
    losses.push_back(nlohmann::json::parse(line).at("loss"));
  ASSERT_EQ(losses.size(), 24u);
  EXPECT_NEAR(losses[0], std::log(10.0), 0.3);  // ten classes, no knowledge
  EXPECT_LT(losses[23], 0.85 * losses[0]);
}

// Micro-batches of one global batch add up to the same gradient: only the order of additions differs.
TEST_F(TrainTest, GradientAccumulationGivesTheSameLosses) {
  auto comm = make_self_communicator();
  auto one = options("one", 8), three = options("three", 8);
  three.config.gradient_accumulation = 3;
  train(one, *comm);
  train(three, *comm);
  std::ifstream a(folder_ / "one/metrics.jsonl"), b(folder_ / "three/metrics.jsonl");
  int lines = 0;
  for (std::string x, y; std::getline(a, x) && std::getline(b, y); ++lines) {
    const double l = nlohmann::json::parse(x).at("loss"), m = nlohmann::json::parse(y).at("loss");
    EXPECT_NEAR(l, m, 1e-5 * l) << "step " << lines + 1;  // float sums in another order, 8 steps
  }
  EXPECT_EQ(lines, 8);
}

}  // namespace
}  // namespace lockstep::train_test
