// SPDX-License-Identifier: Apache-2.0
// `lockstep fit` as a user types it, and what its run folder says.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/files.h"
#include "tests/support/process.h"

namespace lockstep::testing {

// Of data and kernel choices, for all tests: beside the build, not the user's.
inline constexpr const char* kTestCache = LOCKSTEP_BINARY_DIR "/tests/cache";

// Trains into `run_folder`; the test fails with the program's own words where it doesn't end well.
inline bool fit(const std::string& job, const std::string& run_folder,
                const std::vector<std::string>& overrides, const std::string& cache = kTestCache) {
  std::vector<std::string> command = {LOCKSTEP_BINARY, "fit", job, "--output", run_folder};
  for (const std::string& o : overrides) command.insert(command.end(), {"--set", o});
  Process process(command, {{"XDG_CACHE_HOME", cache}});
  const int code = process.wait();
  EXPECT_EQ(code, 0) << process.output();
  return code == 0;
}

// metrics.jsonl: the training loss of every step 1 .. steps. Each must be there, once, in order.
inline std::vector<double> step_losses(const std::string& run_folder, int64_t steps) {
  std::vector<double> losses;
  std::istringstream lines(read_file(run_folder + "/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto entry = nlohmann::json::parse(line);
    if (entry.at("split") != "training") continue;
    losses.push_back(entry.at("loss"));
    EXPECT_EQ(entry.at("step"), static_cast<int64_t>(losses.size())) << run_folder;
  }
  EXPECT_EQ(static_cast<int64_t>(losses.size()), steps) << run_folder;
  losses.resize(static_cast<size_t>(steps));
  return losses;
}

inline nlohmann::json test_line(const std::string& run_folder) {
  nlohmann::json found;
  std::istringstream lines(read_file(run_folder + "/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);)
    if (auto entry = nlohmann::json::parse(line); entry.at("split") == "test") found = entry;
  EXPECT_FALSE(found.is_null()) << run_folder << ": no line of the test at the end";
  return found;
}

}  // namespace lockstep::testing
