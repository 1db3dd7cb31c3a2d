// SPDX-License-Identifier: Apache-2.0
// `lockstep fit --trace --profile`: what ten steps of a job say they were made of.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "tests/distributed/fit.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::trace_test {
namespace {

using nlohmann::json;
using Events = std::vector<json>;

struct Traced {
  int code = 0;
  std::string text;
};

Traced traced(const std::string& run, const std::vector<std::string>& words, const std::string& steps) {
  std::vector<std::string> command = {LOCKSTEP_BINARY,
                                      "fit",
                                      LOCKSTEP_SOURCE_DIR "/configs/mnist_article.yaml",
                                      "--output",
                                      run,
                                      "--set",
                                      "hyperparameters.steps=" + steps,
                                      "--set",
                                      "inputs.training.limit=3840",
                                      "--set",
                                      "inputs.test={limit: 10}"};
  command.insert(command.end(), words.begin(), words.end());
  Process process(command, {{"XDG_CACHE_HOME", kTestCache}});
  const int code = process.wait();
  return {code, process.output()};
}

TEST(TraceOfARun, HasEachOpOfThePlanTenTimesOnEachRank) {
  TestFolder folder;
  const std::string file = folder.file("trace.json"), run = folder.file("run");
  const Traced t = traced(run, {"--trace", file, "--profile"}, "30");
  ASSERT_EQ(t.code, 0) << t.text;
  EXPECT_NE(t.text.find("Mean of 10 steps"), std::string::npos) << t.text;
  EXPECT_NE(t.text.find("conv2d_weight_grad conv2, backward, kernel"), std::string::npos) << t.text;

  std::map<std::string, int> expected;  // op and layer
  const json plan = json::parse(read_file(run + "/plan.json")), trace = json::parse(read_file(file));
  for (const json& node : plan.at("nodes"))
    if (node.contains("kernel"))
      expected[node.at("op").get<std::string>() + " " + node.at("layer").get<std::string>()] += 10;
  ASSERT_GT(expected.size(), 10u);
  std::map<int, std::map<std::string, int>> counts;
  std::map<int, double> end;  // of the computing thread's last span: they follow each other
  std::map<int, int> buckets;
  for (const json& e : trace.at("traceEvents")) {
    if (e.at("ph") != "X") continue;
    const int rank = e.at("pid");
    if (e.at("tid") == 1) {
      ++buckets[rank];
      continue;
    }
    EXPECT_GE(e.at("ts").get<double>(), end[rank] - 0.01) << e;  // 0.01 µs: times are rounded to decimals
    end[rank] = e.at("ts").get<double>() + e.at("dur").get<double>();
    if (e.at("args").contains("kernel")) ++counts[rank][e.at("name")];
  }
  ASSERT_EQ(counts.size(), 2u);
  for (int rank : {0, 1}) {
    EXPECT_EQ(counts[rank], expected) << rank;
    EXPECT_EQ(buckets[rank] % 10, 0) << rank;
    EXPECT_GT(buckets[rank], 0) << rank;
  }
}

TEST(TraceOfARun, OfAJobShorterThanTenSteps) {
  TestFolder folder;
  const Traced t = traced(folder.file("run"), {"--profile", "--set", "instance_count=1"}, "3");
  ASSERT_EQ(t.code, 0) << t.text;
  EXPECT_NE(t.text.find("Mean of 2 steps"), std::string::npos) << t.text;
}

TEST(TraceOfARun, ThatCannotBeWrittenIsSaidBeforeItStarts) {
  TestFolder folder;
  const Traced t = traced(folder.file("run"), {"--trace", folder.file("nowhere/trace.json")}, "4");
  EXPECT_EQ(t.code, 73) << t.text;
  EXPECT_NE(t.text.find("nowhere/trace.json"), std::string::npos) << t.text;
  EXPECT_FALSE(std::filesystem::exists(folder.file("run")));
}

}  // namespace
}  // namespace lockstep::testing::trace_test
