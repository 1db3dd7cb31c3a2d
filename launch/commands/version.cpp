// SPDX-License-Identifier: Apache-2.0
// The one file that a new commit compiles again: cmake/version.cmake makes what it includes at each build.
#include "launch/commands/version.h"

#include "launch/version_text.h"

namespace lockstep {

const char* version() { return LOCKSTEP_VERSION; }

}  // namespace lockstep
