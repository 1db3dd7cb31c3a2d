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

  static bool launched();  // by `lockstep fit`, on this or another host
  // Rank 0, once it is known. Of a new run with what was made for it (RunFolder::made), to be taken away again where no
  // rank comes to its first step.
  void run_folder(const std::string& path, bool is_new = false, const std::string& made = {});
  void step(int64_t step);                // steps done, first before any; one small write, no sync
  int64_t step() const { return step_; }  // the last one reported, from any thread
  bool exit_code(int code);               // before leaving, whatever the reason; whether the launcher has it
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
  int pid = 0;        // 0: not alive
  int64_t step = -1;  // -1: did not come to the first one
  int code = -1;      // -1: left without saying
};
struct ReportedRun {
  std::string path;  // "": not yet known
  bool is_new = false;
  std::string made;
};
RankState read_rank(const std::string& folder, int rank);
ReportedRun read_run_folder(const std::string& folder);

}  // namespace lockstep
