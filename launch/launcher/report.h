// SPDX-License-Identifier: Apache-2.0
// What ranks tell the launcher that started them: a private folder named by LOCKSTEP_REPORT in their
// environment, on the launcher's host. Without it (somebody else's launcher) all calls do nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

namespace lockstep {

class RankReport {
 public:
  explicit RankReport(int rank);
  ~RankReport();
  RankReport(const RankReport&) = delete;
  RankReport& operator=(const RankReport&) = delete;

  static bool launched();                    // by `lockstep fit`, on this or another host
  void run_folder(const std::string& path);  // rank 0, once it is known
  void step(int64_t step);                   // one small write, no sync
  int64_t step() const { return step_; }     // the last one reported, from any thread
  bool exit_code(int code);  // before leaving, whatever the reason; whether the launcher has it
  // Seconds since the launcher itself started; 0 without one.
  double launcher_seconds() const;

 private:
  std::string folder_;
  int rank_;
  int file_ = -1;
  std::atomic<int64_t> step_{0};
};

// The launcher's side.
struct RankState {
  bool started = false;
  int pid = 0;  // 0: not alive
  int64_t step = 0;
  int code = -1;  // -1: left without saying
};
RankState read_rank(const std::string& folder, int rank);
std::string read_run_folder(const std::string& folder);  // "" : not yet known

}  // namespace lockstep
