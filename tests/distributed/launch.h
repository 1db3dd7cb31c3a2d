// SPDX-License-Identifier: Apache-2.0
// Tests that start `lockstep fit` on a tiny job, and look after its processes.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {

// Each test's processes carry the name of its folder in their environment.
class Launch : public ::testing::Test {
 protected:
  using Clock = std::chrono::steady_clock;

  Launch() {
    std::ofstream(folder_.file("job.yaml"))
        << "job_name: tiny\ninstance_count: 2\nmodel: {layers: [flatten, linear: {out_features: "
           "10}]}\ninputs:\n"
        << "  training: {dataset: mnist, path: " << LOCKSTEP_SOURCE_DIR << "/configs/data/mnist, limit: 64}\n"
        << "hyperparameters: {steps: 6, global_batch_size: 8, seed: 1, optimizer: {name: sgd, lr: "
           "0.01}}\nlog_every: 1\n";
  }
  ~Launch() override {
    for (pid_t p : living()) ::kill(p, SIGKILL);  // of a test that failed
  }

  std::vector<std::string> fit(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> c = {LOCKSTEP_BINARY, "fit", folder_.file("job.yaml"), "--output", run_};
    c.insert(c.end(), more.begin(), more.end());
    return c;
  }
  // A job that goes on until it is stopped.
  std::vector<std::string> endless(const std::vector<std::string>& more = {}) const {
    auto c = fit({"--set", "hyperparameters.steps=100000000", "--set", "checkpoint.every_steps=50"});
    c.insert(c.end(), more.begin(), more.end());
    return c;
  }
  std::map<std::string, std::string> environment(std::map<std::string, std::string> more = {}) const {
    more.emplace("LOCKSTEP_TEST_MARK", folder_.path());
    more.emplace("ASAN_OPTIONS",
                 "handle_segv=0");  // a segmentation fault ends a process by its signal there too
    return more;
  }
  std::vector<pid_t> living() const { return processes_with("LOCKSTEP_TEST_MARK=" + folder_.path()); }
  // What one of these runs; "" of one that has ended.
  static std::string program_of(pid_t pid) {
    std::error_code ended;
    return std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/exe", ended).filename();
  }
  pid_t rank_pid(int rank) const { return rank_with("LOCKSTEP_TEST_MARK=" + folder_.path(), rank); }
  bool in_training() {
    const bool there =
        eventually([&] { return std::filesystem::exists(run_ + "/checkpoints/step-00000050"); });
    to_training_ = Clock::now() - begin_;
    return there;
  }
  // What "at once" is: five seconds; more on a machine so busy that the test needed long to come here.
  Clock::duration at_once() const {
    return std::max<Clock::duration>(std::chrono::seconds(5), 5 * to_training_);
  }

  TestFolder folder_;
  std::string run_ = folder_.file("run");

 private:
  Clock::time_point begin_ = Clock::now();
  Clock::duration to_training_{};
};

}  // namespace lockstep::testing
