// SPDX-License-Identifier: Apache-2.0
// Sizes that 64 bits or this machine do not hold, and classes that training would not see: `check` says so.
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>

#include "tests/support/files.h"
#include "tests/support/idx.h"
#include "tests/support/process.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace {

class SizesTest : public ::testing::Test {
 protected:
  void write_job(const std::string& layers, const std::string& training = "",
                 const std::string& hyperparameters = "") {
    write_file(folder_.file("job.yaml"), fmt::format(R"(job_name: sizes
device: cpu
threads_per_rank: 1
model:
  layers: {}
inputs: {{training: {{dataset: idx, path: train-images-idx3-ubyte{}}}}}
hyperparameters: {{steps: 2, global_batch_size: 12, optimizer: {{name: sgd, lr: 0.1}}{}}}
)",
                                                     layers, training, hyperparameters));
  }
  void write_set(const std::vector<GreyImage>& set) { write_idx(folder_.file("train"), 8, set); }
  Ended lockstep(std::vector<std::string> words) const {
    words.insert(words.begin(), LOCKSTEP_BINARY);
    return run(words, {{"XDG_CACHE_HOME", folder_.file("cache")}});
  }
  Ended check() const { return lockstep({"check", folder_.file("job.yaml")}); }
  Ended fit(const std::string& name) const {
    return lockstep({"fit", folder_.file("job.yaml"), "--output", folder_.file(name)});
  }
  static void expect(const Ended& ended, int code, const std::vector<std::string>& words) {
    EXPECT_EQ(ended.code, code) << ended.output;
    for (const std::string& word : words)
      EXPECT_NE(ended.output.find(word), std::string::npos) << "no \"" << word << "\" in: " << ended.output;
  }
  void SetUp() override {
    std::vector<GreyImage> set;
    for (int i = 0; i < 24; ++i) set.push_back({static_cast<uint8_t>(i), static_cast<uint8_t>(i / 12)});
    write_set(set);
  }

  TestFolder folder_;
};

constexpr const char* kRest = "{adaptive_avg_pool2d: 1}, flatten, {linear: {out_features: 2}}]";

TEST_F(SizesTest, Beyond64BitsAreRefusedWithTheLayer) {
  const struct {
    std::string layers;
    std::vector<std::string> words;
  } cases[] = {
      // 2^24 x 2^24 x 2^16 elements
      {"[{conv2d: {out_channels: 16777216, kernel: 1}}, {conv2d: {out_channels: 16777216, kernel: 256, "
       "padding: 128}}, ",
       {"layer=1 (conv2d)", "[16777216, 16777216, 256, 256]"}},
      // 2^48 elements: counted, but not addressed
      {"[{conv2d: {out_channels: 16777216, kernel: 1}}, {conv2d: {out_channels: 16777216, kernel: 1}}, ",
       {"layer=1 (conv2d)", "tensor=1.weight", "more than a process can address"}},
      // the activations of a whole batch, though not those of one sample
      {"[{conv2d: {out_channels: 4096, kernel: 32767, padding: 32767}}, ",
       {"layer=0 (conv2d)", "[12, 4096, 32776, 32776]"}},
      // tensors that could be, but 2^72 operations
      {"[{conv2d: {out_channels: 2, kernel: 65535, padding: 65535}}, ", {"layer=0", "operations"}},
  };
  for (const auto& c : cases) {
    write_job(c.layers + kRest);
    auto words = c.words;
    words.push_back("error[E_TOO_LARGE]");
    expect(check(), 78, words);
    expect(fit("run"), 78, words);
    EXPECT_FALSE(std::filesystem::exists(folder_.file("run")));
  }
}

// Parameters alone, and activations: said without taking the memory, or the time.
TEST_F(SizesTest, BeyondThisMachineAreWarnedOf) {
  for (const std::string layers :
       {"[{conv2d: {out_channels: 4194304, kernel: 1}}, {conv2d: {out_channels: 1048576, kernel: 1}}, ",
        "[{conv2d: {out_channels: 16384, kernel: 1, padding: 4096}}, "}) {
    write_job(layers + kRest);
    const auto start = std::chrono::steady_clock::now();
    expect(check(), 0, {"fine", "warning: ", "this machine has"});
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10)) << layers;
  }
  write_job(std::string("[{conv2d: {out_channels: 4, kernel: 3}}, ") + kRest);
  EXPECT_EQ(check().output.find("warning"), std::string::npos);
}

TEST_F(SizesTest, HeadersOfDataSets) {
  write_file(
      folder_.file("train-images-idx3-ubyte"),
      big_endian_u32(0x803) + big_endian_u32(1U << 31) + big_endian_u32(1U << 31) + big_endian_u32(1U << 31));
  write_job(std::string("[") + kRest);
  expect(check(), 65, {"error[E_IDX_SIZE]"});
}

TEST_F(SizesTest, ClassesThatTrainingWouldNotSee) {
  write_job(std::string("[") + kRest, ", limit: 12");
  expect(check(), 0, {"classes: 0 12, 1 0", "warning: no training samples of 1; limit takes the first 12"});
  expect(fit("limited"), 0, {"warning: no training samples of 1; limit takes the first 12"});
  write_job(std::string("[") + kRest);
  EXPECT_EQ(check().output.find("warning"), std::string::npos);
  // A label that no image has.
  write_set({{0, 0}, {1, 2}, {2, 0}, {3, 2}});
  write_job("[flatten, {linear: {out_features: 3}}]");
  expect(check(), 0, {"warning: no training samples of 1\n"});
  write_set({{0, 0}, {1, 0}});
  write_job("[flatten, {linear: {out_features: 1}}]");
  expect(check(), 0, {"warning: there is one class alone"});
}

}  // namespace
}  // namespace lockstep::testing
