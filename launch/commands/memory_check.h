// SPDX-License-Identifier: Apache-2.0
// Whether a job's memory is to be had here.
#pragma once

#include <string>

#include "launch/commands/job_plan.h"

namespace lockstep {

// What to warn of where the ranks that share a machine, or a GPU, plan more memory than this one has; else "".
std::string memory_warning(const Job& job, const CheckedJob& checked);

}  // namespace lockstep
