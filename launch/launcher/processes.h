// SPDX-License-Identifier: Apache-2.0
// The processes of this host that a job has started: mpirun, what it reaches other hosts by, and ranks. Each has the
// launcher's report folder in its environment.
#pragma once

#include <string>
#include <vector>

namespace lockstep {

struct JobProcess {
  int pid = 0;
  int rank = -1;         // -1: mpirun, ssh
  std::string name;      // "ssh"
  bool stopped = false;  // by SIGSTOP, a terminal or a debugger
};

// Those that live, by `reports`, the value of LOCKSTEP_REPORT.
std::vector<JobProcess> job_processes(const std::string& reports);
// Kills ranks, or all of them, and waits until they are gone, for two seconds at most: who started the launcher may start
// the next job at once.
void kill_ranks(const std::string& reports);
void kill_all(const std::string& reports);

}  // namespace lockstep
