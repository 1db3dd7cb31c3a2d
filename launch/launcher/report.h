// SPDX-License-Identifier: Apache-2.0
// What ranks tell the launcher that started them: in a private folder named by LOCKSTEP_REPORT in their environment, on the
// launcher's host; from other hosts in lines on standard error, which mpirun brings and the launcher keeps to itself.
// Without the variable (somebody else's launcher) all calls do nothing.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lockstep {

class RankReport {
 public:
  explicit RankReport(int rank);
  ~RankReport();
  RankReport(const RankReport&) = delete;
  RankReport& operator=(const RankReport&) = delete;

  static bool launched();  // by `lockstep fit`, on this or another host
  // All ranks have met: MPI is up, and each of them catches signals.
  void met();
  // Rank 0, once it is known. Of a new run with what was made for it (RunFolder::made), to be taken away again where no
  // rank comes to its first step.
  void run_folder(const std::string& path, bool is_new = false, const std::string& made = {});
  void step(int64_t step);                // steps done, first before any; one small write, no sync
  int64_t step() const { return step_; }  // the last one reported, from any thread
  void peer_lost();                       // this rank is about to leave: nothing orderly can follow
  bool exit_code(int code);               // before leaving, whatever the reason; whether the launcher has it
  // Seconds since the launcher itself started; 0 without one.
  double launcher_seconds() const;

 private:
  bool tell(size_t field, int64_t value);

  std::string folder_;
  int rank_;
  int file_ = -1;
  bool remote_ = false;  // the launcher is on another host
  std::atomic<int64_t> step_{0};
  std::chrono::steady_clock::time_point step_told_;
};

// The launcher's side.
struct RankState {
  bool started = false, met = false, peer_lost = false;
  bool remote = false;  // on another host, where nobody sees from here whether it is alive
  int pid = 0;          // 0: not alive here
  int64_t step = -1;    // -1: did not come to the first one
  int code = -1;        // -1: left without saying
};
struct ReportedRun {
  std::string path;  // "": not yet known
  bool is_new = false;
  std::string made;
};
RankState read_rank(const std::string& folder, int rank);
ReportedRun read_run_folder(const std::string& folder);
// Whether the line is the report of a rank on another host, which read_rank() then knows.
bool take_report(const std::string& folder, std::string_view line);

}  // namespace lockstep
