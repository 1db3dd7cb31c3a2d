// SPDX-License-Identifier: Apache-2.0
// `lockstep evaluate` of a classifier beside what `predict` says of each picture.
#include <nlohmann/json.hpp>

#include "runtime/data/dataset.h"
#include "tests/launch/small_run.h"

namespace lockstep::testing {
namespace {

using nlohmann::json;
using Matrix = std::vector<std::vector<int64_t>>;

class Evaluate : public SmallRun {};

TEST_F(Evaluate, TheConfusionMatrixCountsWhatPredictSays) {
  expect(lockstep("fit job.yaml --output run"), Exit::ok);
  std::string files;
  for (uint32_t i = 0; i < kCount; ++i) {
    Image image{1, kSide, kSide, std::vector<uint8_t>(kSide * kSide)};
    for (uint32_t k = 0; k < kSide * kSide; ++k)
      image.pixels[k] = static_cast<uint8_t>(i * 37 + k * 11);  // write_set()
    write_png(folder_.file(fmt::format("{}.png", i)), image);
    files += fmt::format(" {}.png", i);
  }
  Matrix expected(10, std::vector<int64_t>(10));
  std::istringstream lines(lockstep("predict run --json" + files).text);
  size_t label = 0;
  int64_t right = 0;
  for (std::string line; std::getline(lines, line); label = (label + 1) % 10) {
    const size_t taken_for = static_cast<size_t>(json::parse(line)["class"].get<std::string>()[0] - '0');
    ++expected[label][taken_for];
    right += label == taken_for;
  }
  const json score = json::parse(lockstep("evaluate run --json").text);
  EXPECT_EQ(score["confusion"].get<Matrix>(), expected);
  EXPECT_DOUBLE_EQ(score["accuracy"], static_cast<double>(right) / kCount);
  // Ranks add up to the same, and the run's own last line has it.
  EXPECT_EQ(json::parse(shell(mpirun(3) + LOCKSTEP_BINARY " evaluate run --json").text)["confusion"],
            score["confusion"]);
  const std::string metrics = read_file(folder_.file("run/metrics.jsonl"));
  const size_t last = metrics.rfind("{\"step\"");
  EXPECT_EQ(json::parse(metrics.substr(last))["confusion"], score["confusion"]);
}

}  // namespace
}  // namespace lockstep::testing
