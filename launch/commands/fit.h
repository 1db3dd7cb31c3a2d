// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "launch/commands/peer_loss.h"
#include "launch/job/job.h"
#include "launch/launcher/report.h"
#include "runtime/comm/communicator.h"

namespace lockstep {

enum class Resume : uint8_t { never, always, where_possible };

struct FitOptions {
  Resume resume = Resume::never;
  bool retune = false;
  std::vector<std::string> allow_change;  // keys that may differ from the run that is resumed
  std::string output;                     // the run folder itself; empty: a numbered one below output.dir
  std::string trace_file;                 // a Chrome trace of ten steps goes there
  bool profile = false;
  std::string resume_command;  // for messages
};

// One rank of a training job. Returns its exit code; prints errors.
int run_rank(const Job& job, const FitOptions& options, Communicator& comm, RankReport& report,
             PeerLoss& loss);

}  // namespace lockstep
