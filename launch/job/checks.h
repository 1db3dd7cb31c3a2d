// SPDX-License-Identifier: Apache-2.0
// What keys mean together.
#pragma once

#include "launch/job/reader.h"

namespace lockstep::job {

// At most one (or exactly one) of keys that exclude each other.
void check_exclusive(const Reader& reader);
// Everything else that can be known from the job alone. Throws Error(Exit::config) at the key that is wrong.
void check_job(const Job& job, const Reader& reader);

}  // namespace lockstep::job
