// SPDX-License-Identifier: Apache-2.0
// Starts a job's ranks through mpirun, passes signals on, and finds out how it really ended.
#pragma once

#include <string>
#include <vector>

#include "launch/job/job.h"
#include "launch/launcher/outcome.h"

namespace lockstep {

// Hands a job that was read from a pipe to the ranks: its resolved text.
inline constexpr const char* kJobVariable = "LOCKSTEP_JOB";

// Whether `fit` would start ranks of this job here: it has several, or its machines are named, and no launcher has started
// this process as one of them.
bool starts_ranks(const Job& job);

// What launch_ranks() would fail for: mpirun and the machines. Errors: config (78), unavailable (69), no_input (66).
void require_launchable(const Job& job);

// `rank_arguments`: the command line that each rank runs after this program's own path. Returns the job's
// exit code: from the run's status.json, or the ranks' reports where there is no run folder yet (outcome.h).
//
// SIGINT, SIGTERM, SIGUSR1 and SIGHUP become SIGUSR1 to mpirun, which forwards it to the ranks: they agree on a last step,
// write a checkpoint and leave with 75. Another one, a second later or more, stops everything at once. When a rank dies,
// mpirun ends the others, and status.json says so; where it does not, as when a host's link is down, this process ends it.
// Ranks that have not met by the job's start deadline end it too. If this process is killed, mpirun ends the ranks; if
// mpirun is, this process does.
int launch_ranks(const Job& job, const std::vector<std::string>& rank_arguments,
                 const Resumption& resumption);

}  // namespace lockstep
