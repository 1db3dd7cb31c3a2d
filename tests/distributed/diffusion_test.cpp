// SPDX-License-Identifier: Apache-2.0
// A diffusion model trained and sampled by the real program: on one rank and several, kept and recomputed
// activations, interrupted and resumed, on the CPU and on the SIMT executor.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "runtime/checkpoint/safetensors.h"
#include "tests/distributed/fit.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::diffusion_test {
namespace {

const std::string kJob = LOCKSTEP_SOURCE_DIR "/tests/golden/diffusion/tiny.yaml";
constexpr int64_t kSteps = 20;

struct Outcome {
  int code;
  std::string text;
};

Outcome run(const TestFolder& folder, const std::vector<std::string>& command) {
  Process process(command, {{"XDG_CACHE_HOME", folder.file("cache")}, {"TMPDIR", folder.path()}});
  const int code = process.wait();
  return {code, process.output()};
}

std::vector<float> tensor(const std::string& path, const std::string& name) {
  const auto file = SafetensorsFile::open(path);
  const StoredTensor* t = file->find(name);
  if (!t) throw std::runtime_error(path + " has no " + name);
  std::vector<float> values(t->bytes.size() / sizeof(float));
  std::memcpy(values.data(), t->bytes.data(), t->bytes.size());
  return values;
}

bool same_weights(const std::string& run, const std::string& other) {
  const std::string file = "/unet/diffusion_pytorch_model.safetensors";
  return read_file(run + file) == read_file(other + file);
}

class Diffusion : public ::testing::Test {
 protected:
  std::string train(const std::string& name, const std::vector<std::string>& more) {
    const std::string path = folder_.file(name);
    EXPECT_TRUE(fit(kJob, path, more)) << name;
    return path;
  }
  std::vector<std::string> sample(const std::string& from, const std::string& raw, int ranks,
                                  const std::vector<std::string>& more = {}) {
    std::vector<std::string> command{LOCKSTEP_BINARY,         "sample", from, "--raw", raw, "--out",
                                     folder_.file("grid.png")};
    command.insert(command.end(), more.begin(), more.end());
    return ranks > 1 ? mpirun(ranks, command) : command;
  }
  TestFolder folder_;
};

// Noise, timesteps, hidden labels and dropout are drawn by sample: only the order of sums differs.
TEST_F(Diffusion, SameLossesAndSamplesOnOneTwoAndFourRanks) {
  std::vector<double> one;
  std::vector<float> images;
  for (int ranks : {1, 2, 4}) {
    const std::string path = train(std::to_string(ranks), {"instance_count=" + std::to_string(ranks)});
    const auto losses = step_losses(path, kSteps);
    if (one.empty()) one = losses;
    for (size_t s = 0; s < losses.size(); ++s)
      ASSERT_NEAR(losses[s], one[s], 1e-5 * one[s]) << ranks << " step " << s + 1;

    // The first model's images, by so many ranks.
    const std::string raw = folder_.file("images.safetensors");
    const Outcome drawn =
        run(folder_, sample(folder_.file("1"), raw, ranks, {"--count", "7", "--seed", "5"}));
    ASSERT_EQ(drawn.code, 0) << drawn.text;
    const auto got = tensor(raw, "images");
    ASSERT_EQ(got.size(), 7u * 28 * 28);
    if (images.empty()) images = got;
    // 2/255 of a range of 2; other batch sizes may choose other vector tails, never other numbers.
    for (size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(got[i], images[i], 4.0 / 255) << ranks << " ranks, " << i;
  }
  EXPECT_TRUE(std::filesystem::exists(folder_.file("1") + "/samples/step-00000020.png"));
}

TEST_F(Diffusion, RecomputedActivationsKeepTheBitsAndHalveTheMemory) {
  const auto arena = [&](const std::string& path) {
    return nlohmann::json::parse(read_file(path + "/plan.json"))
        .at("memory")
        .at("activations")
        .get<int64_t>();
  };
  // 16 samples a part: fewer, and the lanes layout's padding would weigh more than activations.
  std::vector<std::string> more = {"hyperparameters.global_batch_size=32",
                                   "hyperparameters.gradient_accumulation=2", "hyperparameters.steps=6"};
  const std::string kept = train("kept", more);
  more.emplace_back("hyperparameters.recompute=blocks");
  const std::string again = train("again", more);
  EXPECT_EQ(step_losses(again, 6), step_losses(kept, 6));
  EXPECT_TRUE(same_weights(again, kept));
  // Half, and somewhat more where kernels with a large workspace are chosen.
  EXPECT_LT(static_cast<double>(arena(again)), 0.65 * static_cast<double>(arena(kept)));

  const Outcome impossible =
      run(folder_, {LOCKSTEP_BINARY, "plan", kJob, "--set", "hyperparameters.recompute=auto", "--set",
                    "hyperparameters.memory_budget_mb=1"});
  EXPECT_EQ(impossible.code, 78) << impossible.text;
  EXPECT_NE(impossible.text.find("E_MEMORY_BUDGET"), std::string::npos) << impossible.text;
}

TEST_F(Diffusion, ResumedInTheMiddleWithTheSameBits) {
  const std::string whole = train("whole", {});
  const std::string path = train("parts", {"checkpoint.every_steps=7", "checkpoint.keep=0"});
  for (const char* step : {"14", "20"})
    std::filesystem::remove_all(path + "/checkpoints/step-000000" + std::string(step));
  const Outcome resumed = run(folder_, {LOCKSTEP_BINARY, "fit", kJob, "--output", path, "--resume", "--set",
                                        "checkpoint.every_steps=7", "--set", "checkpoint.keep=0"});
  ASSERT_EQ(resumed.code, 0) << resumed.text;
  EXPECT_EQ(step_losses(path, kSteps), step_losses(whole, kSteps));
  EXPECT_TRUE(same_weights(path, whole));
}

TEST_F(Diffusion, OnTheSimtExecutorAsOnTheCpu) {
  // Small enough for threads that are fibers.
  const std::vector<std::string> few = {"model.config.block_out_channels=[4, 8]",
                                        "model.config.norm_num_groups=2",
                                        "model.config.attention_head_dim=4",
                                        "hyperparameters.steps=5",
                                        "hyperparameters.lr_schedule=constant",
                                        "hyperparameters.global_batch_size=2",
                                        "sampling.count=1",
                                        "sampling.steps=1",
                                        "sampling.guidance=1",
                                        "inputs.test.limit=2"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), few.begin(), few.end());
    return more;
  };
  // Float differs by the order of sums only; bf16 also by what is fused and so not rounded (2^-8) in between.
  for (const auto& [precision, tolerance] : {std::pair{"fp32", 1e-4}, {"bf16", 5e-3}}) {
    const std::string set = std::string("hyperparameters.precision=") + precision;
    const auto expected = step_losses(train(std::string("cpu-") + precision, with({"device=cpu", set})), 5);
    for (int ranks : {1, 2}) {
      const auto got = step_losses(train(fmt::format("simt{}-{}", ranks, precision),
                                         with({"device=simt", set, fmt::format("instance_count={}", ranks)})),
                                   5);
      for (size_t s = 0; s < got.size(); ++s)
        ASSERT_NEAR(got[s], expected[s], tolerance * expected[s])
            << precision << " ranks " << ranks << " step " << s + 1;
    }
  }
}

// The folder alone, without job and data, and noise that is handed in.
TEST_F(Diffusion, AFolderSamplesAsItsRun) {
  const std::string path = train("run", {});
  const std::string noise = folder_.file("noise.safetensors");
  const Outcome first = run(folder_, sample(path, folder_.file("a.safetensors"), 1,
                                            {"--save-noise", noise, "--each", folder_.file("each")}));
  ASSERT_EQ(first.code, 0) << first.text;
  const std::string alone = folder_.file("alone");
  std::filesystem::create_directory(alone);
  for (const char* part : {"unet", "scheduler", "model_index.json", "model.json"})
    std::filesystem::copy(path + "/" + part, alone + "/" + part, std::filesystem::copy_options::recursive);
  const Outcome second =
      run(folder_, sample(alone, folder_.file("b.safetensors"), 1, {"--init-noise", noise, "--seed", "99"}));
  ASSERT_EQ(second.code, 0) << second.text;
  EXPECT_TRUE(tensor(folder_.file("a.safetensors"), "images") ==
              tensor(folder_.file("b.safetensors"), "images"));
  EXPECT_TRUE(std::filesystem::exists(folder_.file("each") + "/000005-class-5.png"));

  // Activations in bf16 round, and change no more than that.
  const Outcome half =
      run(folder_, sample(path, folder_.file("half.safetensors"), 1, {"--precision", "bf16"}));
  ASSERT_EQ(half.code, 0) << half.text;
  const auto exact = tensor(folder_.file("a.safetensors"), "images"),
             rounded = tensor(folder_.file("half.safetensors"), "images");
  EXPECT_FALSE(rounded == exact);
  double off = 0;
  for (size_t i = 0; i < exact.size(); ++i) off += std::abs(rounded[i] - exact[i]);
  EXPECT_LT(off / static_cast<double>(exact.size()), 0.02);  // of a range of 2

  // What the program says where it cannot.
  const auto expect = [&](const std::string& from, const std::vector<std::string>& more, int code,
                          const std::string& words) {
    const Outcome o = run(folder_, sample(from, folder_.file("c.safetensors"), 1, more));
    EXPECT_EQ(o.code, code) << o.text;
    EXPECT_NE(o.text.find(words), std::string::npos) << words << " in " << o.text;
  };
  expect(path, {"--class", "11"}, 78, "the model knows no class '11'");
  expect(path, {"--class", "11"}, 78, "folder=");
  // As diffusers has it, a folder's table has a class a row, and nothing is known of 'no class'.
  std::filesystem::remove(alone + "/model.json");
  expect(alone, {"--count", "11", "--guidance", "1.5", "--steps", "2"}, 78, "row for 'no class'");
  expect(alone, {"--class", "none"}, 78, "the model knows no class 'none'");
  expect(alone, {"--count", "12", "--steps", "2", "--each", folder_.file("rows")}, 0, "12 images");
  EXPECT_TRUE(std::filesystem::exists(folder_.file("rows") + "/000010-class-10.png"));
  EXPECT_TRUE(std::filesystem::exists(folder_.file("rows") + "/000011-class-0.png"));
  expect(path, {"--class", "none", "--count", "2", "--guidance", "1", "--steps", "2"}, 0, "2 images");
  // A class's number without a row of its own would silently be no class at all.
  const auto refused = [&](const std::vector<std::string>& words, const std::string& said) {
    std::vector<std::string> command = {LOCKSTEP_BINARY};
    command.insert(command.end(), words.begin(), words.end());
    const Outcome o = run(folder_, command);
    EXPECT_EQ(o.code, 78) << o.text;
    EXPECT_NE(o.text.find(said), std::string::npos) << o.text;
  };
  refused({"check", kJob, "--set", "model.config.num_class_embeds=10"}, "labels have 11 values");
  refused({"check", kJob, "--set", "objective.label_dropout=0"}, "guidance needs");
  refused({"predict", path,
           LOCKSTEP_SOURCE_DIR "/tests/golden/digits/" +
               std::filesystem::directory_iterator(LOCKSTEP_SOURCE_DIR "/tests/golden/digits")
                   ->path()
                   .filename()
                   .string()},
          "lockstep sample");
  expect(path, {"--sampler", "ddpm", "--steps", "2000"}, 78, "steps");
  expect(path, {"--sampler", "nonsense"}, 78, "nonsense");
  expect(path, {"--precision", "fp16"}, 64, "fp32 or bf16, not 'fp16'");
  expect(folder_.file("nowhere"), {}, 66, "no such run or folder");
  expect(path, {"--init-noise", noise, "--count", "5"}, 65, "noise");
  std::ofstream(alone + "/unet/config.json") << R"({"time_embedding_type": "fourier"})";
  expect(alone, {}, 78, "time_embedding_type");
  std::ofstream(alone + "/unet/config.json") << "{";
  expect(alone, {}, 65, "config.json");
  std::filesystem::remove(alone + "/scheduler/scheduler_config.json");
  expect(alone, {}, 66, "scheduler_config.json");
}

}  // namespace
}  // namespace lockstep::testing::diffusion_test
