// SPDX-License-Identifier: Apache-2.0
// How a failure is told to a person.
#pragma once

#include <string>

#include "runtime/telemetry/say.h"

namespace lockstep {

// A line on stderr. Where it cannot be written nothing more can be said: the exit code must do.
inline void report_error(const std::string& message) { say(stderr, message + "\n"); }

}  // namespace lockstep
