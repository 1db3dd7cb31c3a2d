// The communicator of this process: over MPI where a launcher started it, else one rank alone.
#pragma once

#include "runtime/comm/communicator.h"

namespace lockstep::testing {

Communicator& world();

}  // namespace lockstep::testing
