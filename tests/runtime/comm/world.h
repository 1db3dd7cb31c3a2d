// SPDX-License-Identifier: Apache-2.0
// The communicator of this process: over MPI where a launcher started it, else one rank alone.
#pragma once

#include "runtime/comm/communicator.h"

namespace lockstep::testing {

Communicator& world();
// Whether its sums have a fixed order; LOCKSTEP_TEST_ANY_ORDER: not.
bool has_fixed_order();

}  // namespace lockstep::testing
