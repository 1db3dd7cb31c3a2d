// SPDX-License-Identifier: Apache-2.0
// How a job that mpirun ran has really ended.
#pragma once

#include <string>

#include "launch/job/job.h"
#include "launch/launcher/mpirun_noise.h"

namespace lockstep {

struct Ending {
  int mpirun_status = 0;  // as waitpid has it
  bool forced = false;    // by a second signal
  bool stuck = false;     // a rank had ended and mpirun did nothing, so that the launcher killed it
};

// The exit code: that in the run's status.json, else the one that a rank has reported, else 75 with the rank
// that was lost, the last step and how to resume, on stderr and in status.json. Throws
// Error(Exit::unavailable) where mpirun could not start the ranks. `mpirun`: the program.
int conclude(const std::string& reports, const Job& job, const Ending& ending, const MpirunNoise& noise,
             const std::string& mpirun, const std::string& resume_command);

}  // namespace lockstep
