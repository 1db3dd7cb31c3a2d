// SPDX-License-Identifier: Apache-2.0
// How a job that mpirun ran has really ended.
#pragma once

#include <optional>
#include <string>

#include "kernels/core/error.h"
#include "launch/job/job.h"
#include "launch/launcher/mpirun_noise.h"

namespace lockstep {

struct Ending {
  int mpirun_status = 0;     // as waitpid has it
  std::optional<Error> why;  // the launcher's own reason to end the job
  bool killed = false;       // by the launcher, as mpirun did not end
  int gone = -1;  // the first rank seen to have left without a word, before the launcher ended others
};

// How the job goes on after an interruption.
struct Resumption {
  std::string command;
  bool exists = false;  // this one goes on from a run that is there already
};

// The exit code: that in the run's status.json, else the one that a rank has reported, else with the rank or host that was
// lost, and the last step, on stderr and in status.json: 75 where the run can be resumed or a stop was asked for, 69 where no
// step was done. 0 only where all ranks have reported it. Throws Error(Exit::unavailable) where mpirun could not start the
// ranks. `mpirun`: the program.
int conclude(const std::string& reports, const Job& job, const Ending& ending, const MpirunNoise& noise,
             const std::string& mpirun, const Resumption& resumption);

}  // namespace lockstep
