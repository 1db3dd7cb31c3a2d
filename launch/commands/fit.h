// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "launch/job/job.h"
#include "launch/launcher/report.h"
#include "runtime/comm/communicator.h"

namespace lockstep {

struct FitOptions {
  bool resume = false, retune = false;
  std::string output;      // the run folder itself; empty: a numbered one below output.dir
  std::string trace_file;  // a Chrome trace of ten steps goes there
  bool profile = false;
  std::string resume_command;  // for messages
  // A peer is lost: says so, before the process leaves with 75.
  std::function<void(const std::string& what)> on_peer_lost;
};

// One rank of a training job. Returns its exit code; prints errors.
int run_rank(const Job& job, const FitOptions& options, Communicator& comm, RankReport& report);

}  // namespace lockstep
