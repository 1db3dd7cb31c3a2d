// SPDX-License-Identifier: Apache-2.0
// The mpirun command line of a job.
#pragma once

#include <string>
#include <vector>

#include "launch/job/job.h"

namespace lockstep {

// Where all ranks share this host: only the transports for that, and no look at a batch
// system's other hosts. Ranks bind themselves (take_share_of_cores), since mpirun knows neither the affinity
// mask nor more ranks than cores. Errors: config (78) where there is no mpirun on the PATH.
std::vector<std::string> mpirun_command(const Job& job, int cores);

// The one on the PATH. Errors: config (78).
std::string find_mpirun();

// Whether that program is Open MPI's, as its --version says. Errors: unavailable (69).
void require_open_mpi(const std::string& mpirun);

}  // namespace lockstep
