// SPDX-License-Identifier: Apache-2.0
// What a valid job asks for and this build or machine lacks.
#pragma once

#include "launch/job/job.h"

namespace lockstep {

// Throws Error(Exit::config) that names what is missing and what would work; Error(Exit::no_input) for a
// hostfile that isn't there. For `check` and the launcher, before a rank starts; and for each rank, which may
// see a GPU of its own only.
void require_available(const Job& job);
// The same of the build alone: enough for a plan, which needs no GPU.
void require_built(const Job& job);

}  // namespace lockstep
