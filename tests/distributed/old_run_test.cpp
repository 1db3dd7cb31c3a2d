// SPDX-License-Identifier: Apache-2.0
// Runs that version 0.1.0 left (tests/golden/make_old_runs.py), used by today's program as 0.1.0 used them: their data gone,
// elsewhere, and in their place.
#include <cmath>
#include <cstring>

#include "runtime/checkpoint/safetensors.h"
#include "tests/distributed/colours.h"
#include "tests/distributed/fit.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::old_run_test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// The bits are 0.1.0's on the machine that made the golden file. Another one may choose kernels that sum in another order:
// a few units in the last place of fp32 for each of the nets' sums, of at most 300 numbers.
constexpr double kRounding = 1e-5;

class OldRun : public ::testing::Test {
 protected:
  OldRun() {
    fs::copy(golden_, folder_.file("runs"), fs::copy_options::recursive);
    write_colours(folder_.file("data"), {"blue", "green", "red"});
  }
  Ended lockstep(std::vector<std::string> words) const {
    words.insert(words.begin(), LOCKSTEP_BINARY);
    return run(words, {{"XDG_CACHE_HOME", folder_.file("cache")}});
  }
  // A line that is a JSON object; notes are none.
  static std::vector<json> objects(const Ended& e) {
    EXPECT_EQ(e.code, 0) << e.output;
    std::vector<json> found;
    std::istringstream lines(e.output);
    for (std::string line; std::getline(lines, line);)
      if (line.starts_with("{")) found.push_back(json::parse(line));
    return found;
  }
  void expect_probabilities(const std::vector<std::string>& names) const {
    std::vector<std::string> words = {"predict", folder_.file("runs/classifier"), "--json"};
    for (const char* kind : {"blue", "green", "red"})
      words.push_back(folder_.file(fmt::format("data/test/{}/1.png", kind)));
    const std::vector<json> now = objects(lockstep(words));
    ASSERT_EQ(now.size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      const json& before = said_["predict"][i];
      EXPECT_EQ(now[i]["class"], names[i]);
      for (size_t c = 0; c < 3; ++c)
        EXPECT_NEAR(now[i]["probabilities"][names[c]].get<double>(),
                    before["probabilities"][kNames[c]].get<double>(), kRounding);
    }
  }
  void expect_loss(const json& before, const std::vector<std::string>& words) const {
    const std::vector<json> now = objects(lockstep(words));
    ASSERT_EQ(now.size(), 1u);
    EXPECT_EQ(now[0]["count"], before["count"]);
    EXPECT_NEAR(now[0]["loss"].get<double>(), before["loss"].get<double>(), kRounding);
  }
  void bring_data_back() const {
    for (const char* kind : {"classifier", "diffusion"}) {
      const std::string job = folder_.file(fmt::format("runs/{}/job.yaml", kind));
      std::string text = read_file(job);
      for (size_t at = 0; (at = text.find("/colours/data", at)) != std::string::npos;)
        text.replace(at, 13, folder_.file("data"));
      write_file(job, text);
    }
  }

  const std::vector<std::string> kNames = {"blue", "green", "red"};
  const std::string golden_ = LOCKSTEP_SOURCE_DIR "/tests/golden/old_runs";
  const json said_ = json::parse(read_file(golden_ + "/said.json"));
  TestFolder folder_;
};

TEST_F(OldRun, IsUsedWithoutItsData) {
  expect_probabilities({"0", "1", "2"});  // nothing in the folder knows their names
  expect_loss(said_["evaluate"],
              {"evaluate", folder_.file("runs/classifier"), "--data", folder_.file("data"), "--json"});
  expect_loss(said_["diffusion"], {"evaluate", folder_.file("runs/diffusion"), "--data", folder_.file("data"),
                                   "--split", "training", "--json"});
  const Ended e = lockstep({"evaluate", folder_.file("runs/classifier"), "--data", folder_.file("data")});
  EXPECT_NE(e.output.find("\"blue\", \"green\", \"red\" are taken for 0 to 2"), std::string::npos)
      << e.output;
  write_colours(folder_.file("more"), {"blue", "green", "red", "yak"});
  const Ended more = lockstep({"evaluate", folder_.file("runs/classifier"), "--data", folder_.file("more")});
  EXPECT_EQ(more.code, 65) << more.output;
  EXPECT_NE(more.output.find("4 classes, where the model has 3"), std::string::npos) << more.output;
}

TEST_F(OldRun, KnowsItsClassesByItsData) {
  bring_data_back();
  expect_probabilities(kNames);
  expect_loss(said_["evaluate"], {"evaluate", folder_.file("runs/classifier"), "--json"});
  expect_loss(said_["diffusion"],
              {"evaluate", folder_.file("runs/diffusion"), "--split", "training", "--json"});
}

TEST_F(OldRun, IsSampledFrom) {
  const std::string raw = folder_.file("raw"), noise = folder_.file("noise");
  // Its ddim clipped as diffusers' does.
  const Ended e = lockstep({"sample", folder_.file("runs/diffusion"), "--compat", "diffusers", "--seed", "3",
                            "--raw", raw, "--save-noise", noise, "--out", folder_.file("grid.png")});
  ASSERT_EQ(e.code, 0) << e.output;
  for (const auto& [file, name] : {std::pair{raw, "images"}, {noise, "noise"}}) {
    const auto opened = SafetensorsFile::open(file);
    const StoredTensor* tensor = opened->find(name);
    ASSERT_NE(tensor, nullptr);
    std::vector<float> now(tensor->bytes.size() / sizeof(float));
    std::memcpy(now.data(), tensor->bytes.data(), tensor->bytes.size());
    const auto before = said_[name].get<std::vector<float>>();
    ASSERT_EQ(now.size(), before.size());
    // Four steps one after the other, each of which guidance 1.5 makes larger.
    for (size_t i = 0; i < now.size(); ++i) ASSERT_NEAR(now[i], before[i], 10 * kRounding) << name << i;
  }
}

// A plan without what is looked for in it, however it was damaged, is no reason to guess.
TEST_F(OldRun, WithoutDataNeedsItsPlan) {
  const std::string plan = folder_.file("runs/classifier/plan.json");
  const auto predict = [&] {
    return lockstep({"predict", folder_.file("runs/classifier"), folder_.file("data/test/red/1.png")});
  };
  for (const char* text :
       {"", "{}", "{\"nodes\": [{}]}", "{\"nodes\": []}",
        "{\"nodes\": [{\"op\": \"x\", \"in\": [{\"name\": \"images\", \"tensor\": \"u8[\"}]}]}"}) {
    write_file(plan, text);
    const Ended e = predict();
    EXPECT_EQ(e.code, 65) << text << e.output;
    EXPECT_NE(e.output.find("plan.json"), std::string::npos) << e.output;
  }
  fs::remove(plan);
  EXPECT_EQ(predict().code, 66);
}

}  // namespace
}  // namespace lockstep::testing::old_run_test
