// SPDX-License-Identifier: Apache-2.0
// How a failure is told to a person.
#pragma once

#include <cstdio>
#include <string>

namespace lockstep {

// A line on stderr. Where it cannot be written nothing more can be said: the exit code must do.
inline void report_error(const std::string& message) { std::fputs((message + "\n").c_str(), stderr); }

}  // namespace lockstep
