// SPDX-License-Identifier: Apache-2.0
// `lockstep evaluate RUN --judge RUN2`: a classifier reads a diffusion model's samples.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/distributed/fit.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::judge_test {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

const std::map<std::string, std::string> kCache = {{"XDG_CACHE_HOME", kTestCache}};
const std::string kDigits = LOCKSTEP_SOURCE_DIR "/tests/golden/digits";

class Judged : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TestFolder;
    ASSERT_TRUE(fit(LOCKSTEP_SOURCE_DIR "/tests/golden/diffusion/tiny.yaml", run_of("drawer"),
                    {"hyperparameters.steps=4", "validation_fraction=0.25", "instance_count=1"}));
    ASSERT_TRUE(fit(LOCKSTEP_SOURCE_DIR "/configs/mnist_article.yaml", run_of("reader"),
                    {"hyperparameters.steps=30", "instance_count=1", "inputs.test.limit=10"}));
  }
  static void TearDownTestSuite() { delete folder_; }
  static std::string run_of(const std::string& name) { return folder_->file(name); }

  static std::vector<std::string> evaluate(const std::vector<std::string>& more) {
    std::vector<std::string> command = {LOCKSTEP_BINARY, "evaluate"};
    command.insert(command.end(), more.begin(), more.end());
    return command;
  }
  static void refused(const std::vector<std::string>& more, int code, const std::string& words) {
    const Ended e = run(evaluate(more), kCache);
    EXPECT_EQ(e.code, code) << e.output;
    EXPECT_NE(e.output.find(words), std::string::npos) << words << " in " << e.output;
  }
  static TestFolder* folder_;
};
TestFolder* Judged::folder_ = nullptr;

TEST_F(Judged, ReadsWhatSampleDrawsOnAnyNumberOfRanks) {
  const std::vector<std::string> how = {"--count", "40",     "--steps", "3",         "--guidance",
                                        "2",       "--seed", "9",       "--sampler", "euler"};
  std::vector<std::string> words = {run_of("drawer"), "--judge", run_of("reader"), "--json"};
  words.insert(words.end(), how.begin(), how.end());
  const Ended alone = run(evaluate(words), kCache);
  ASSERT_EQ(alone.code, 0) << alone.output;
  const json verdict = json::parse(alone.output);
  EXPECT_EQ(verdict.at("count"), 40);
  EXPECT_EQ(verdict.at("sampler"), "euler");
  EXPECT_EQ(verdict.at("steps"), 3);
  EXPECT_EQ(verdict.at("split"), "test");
  const double distance = verdict.at("frechet_distance"),
               of_training = verdict.at("training_frechet_distance");
  EXPECT_GT(distance, of_training);  // four steps teach no digits
  EXPECT_GT(of_training, 0);
  EXPECT_DOUBLE_EQ(verdict.at("frechet_ratio"), distance / of_training);

  // The same through the commands that draw and read.
  std::vector<std::string> sample = {LOCKSTEP_BINARY, "sample", run_of("drawer"),  "--each",
                                     run_of("each"),  "--out",  run_of("grid.png")};
  sample.insert(sample.end(), how.begin(), how.end());
  ASSERT_EQ(run(sample, kCache).code, 0);
  std::vector<std::string> predict = {LOCKSTEP_BINARY, "predict", run_of("reader"), "--json"};
  for (const auto& file : fs::directory_iterator(run_of("each"))) predict.push_back(file.path());
  const Ended read = run(predict, kCache);
  ASSERT_EQ(read.code, 0) << read.output;
  int right = 0;
  std::istringstream lines(read.output);
  for (std::string line; std::getline(lines, line);) {
    const json said = json::parse(line);
    right += said.at("file").get<std::string>().find("-class-" + said.at("class").get<std::string>() + ".") !=
             std::string::npos;
  }
  EXPECT_DOUBLE_EQ(verdict.at("accuracy"), right / 40.0);

  const Ended two = run(mpirun(2, evaluate(words)), kCache);
  ASSERT_EQ(two.code, 0) << two.output;
  const json together = json::parse(two.output);  // once
  EXPECT_EQ(together.at("accuracy"), verdict.at("accuracy"));
  EXPECT_EQ(together.at("training_frechet_distance"), verdict.at("training_frechet_distance"));
  // Smaller batches may take other vector tails: last bits of samples, and of 255 levels now and then one.
  EXPECT_NEAR(together.at("frechet_distance"), distance, 1e-3 * distance);
}

TEST_F(Judged, SaysItInWordsAndAgainstAnotherSplit) {
  const Ended e =
      run(evaluate({run_of("drawer"), "--judge", run_of("reader"), "--split", "validation", "--count", "30"}),
          kCache);
  ASSERT_EQ(e.code, 0) << e.output;
  for (const char* words :
       {"30 samples, ddim in 4 steps, guidance 1.5: ", "% read as the class asked for (", " of 30)",
        "distance to 30 validation images: ", "that of 30 training images ", "ratio "})
    EXPECT_NE(e.output.find(words), std::string::npos) << words << " in " << e.output;
}

TEST_F(Judged, SaysWhatItCannotJudge) {
  const std::string drawer = run_of("drawer"), reader = run_of("reader");
  refused({reader, "--judge", reader}, 78, "classifier");
  refused({drawer, "--judge", drawer}, 78, "diffusion model");
  refused({drawer, "--judge", run_of("nowhere")}, 66, "nowhere");
  refused({drawer, "--judge", reader}, 64, "--count 40");  // of 1000, the test has 40
  refused({drawer, "--judge", reader, "--count", "1"}, 64, "at least 2");
  refused({drawer, "--judge", reader, "--count", "30", "--split", "training"}, 64, "training images");
  refused({drawer, "--judge", reader, "--count", "30", "--steps", "2000"}, 78, "steps");
  refused({drawer, "--count", "30"}, 64, "--count goes with --judge");

  // A judge of two classes, which have other names.
  for (const char* name : {"a", "b"}) {
    fs::create_directories(run_of("pairs/") + name);
    fs::copy_file(kDigits + "/test-0.png", run_of("pairs/") + name + "/digit.png");
  }
  ASSERT_TRUE(
      fit(LOCKSTEP_SOURCE_DIR "/configs/mnist_article.yaml", run_of("pairs-run"),
          {"inputs.training={dataset: image_folder, path: " + run_of("pairs") + "}",
           "inputs.test={dataset: image_folder, path: " + run_of("pairs") + "}", "instance_count=1",
           "hyperparameters.global_batch_size=2", "model={layers: [flatten, {linear: {out_features: 2}}]}"}));
  refused({drawer, "--judge", run_of("pairs-run"), "--count", "30"}, 78,
          "the judge knows no class 0, which the diffusion model draws");
}

}  // namespace
}  // namespace lockstep::testing::judge_test
