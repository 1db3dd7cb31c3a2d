// SPDX-License-Identifier: Apache-2.0
// mpirun's own words among the ranks' on its standard error: texts between lines of dashes. Those about ended
// ranks are read for which rank or host it was and why, and kept back; everything else passes through, but for the reports
// of ranks on other hosts.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace lockstep {

class MpirunNoise {
 public:
  // `print` gets what passes through, whole lines. `is_report`: whether it has taken a line for itself.
  explicit MpirunNoise(
      std::function<void(std::string_view)> print,
      std::function<bool(std::string_view)> is_report = [](std::string_view) { return false; })
      : print_(std::move(print)), is_report_(std::move(is_report)) {}
  void feed(std::string_view bytes);
  void finish();  // what is still held back goes out

  int failed_rank() const { return failed_rank_; }             // the first that mpirun named; -1: none
  const std::string& cause() const { return cause_; }          // "signal 9 (Killed)", "exit code 1"
  int exit_code() const { return exit_code_; }                 // of the failed rank; 0: a signal, or none
  const std::string& lost_host() const { return lost_host_; }  // that mpirun has lost its daemon on; "": none
  // "node1 cannot connect to 10.88.0.2 (No route to host)", as a rank's Open MPI says; "": it does not.
  const std::string& unreachable() const { return unreachable_; }

 private:
  void line(const std::string& line);
  void close_box();
  void read_ended_rank(const std::string& box);

  std::function<void(std::string_view)> print_;
  std::function<bool(std::string_view)> is_report_;
  std::string partial_, rule_, box_, cause_, lost_host_,
      unreachable_;  // rule_: a line of dashes whose successor decides what it is
  bool in_box_ = false, ended_ranks_ = false;
  int failed_rank_ = -1, exit_code_ = 0;
};

}  // namespace lockstep
