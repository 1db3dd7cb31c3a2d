// Starts a job's ranks through mpirun, passes signals on, and finds out how it really ended.
#pragma once

#include <string>
#include <vector>

#include "launch/job/job.h"

namespace lockstep {

// `rank_arguments`: the command line that each rank runs after the program's own path. Returns the job's exit code:
// from the run's status.json, or the ranks' reports where there is no run folder yet.
//
// SIGINT and SIGTERM become SIGUSR1 to mpirun, which forwards it to the ranks: they agree on a last step, write a
// checkpoint and leave with 75. A second one stops everything at once. When a rank dies, the others are gone and
// status.json says so within a few seconds. If this process is killed, mpirun ends the ranks.
int launch_ranks(const Job& job, const std::vector<std::string>& rank_arguments, const std::string& resume_command);

// The mpirun command line without the program: the fast transports where all ranks share this host.
std::vector<std::string> mpirun_command(const Job& job, int cores);

}  // namespace lockstep
