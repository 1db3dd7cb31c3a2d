// SPDX-License-Identifier: Apache-2.0
// The one file that a new commit compiles again: cmake/version.cmake makes what it includes at each build.
#include "launch/commands/version.h"

#include <fmt/format.h>

#include "launch/version_text.h"
#include "runtime/files/build_id.h"

namespace lockstep {
const char* version() { return LOCKSTEP_VERSION; }

std::string build() {
  const std::string id = build_id();
  return id.empty() ? version() : fmt::format("{}, build {}", version(), id.substr(0, 16));
}

}  // namespace lockstep
