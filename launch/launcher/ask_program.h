// SPDX-License-Identifier: Apache-2.0
// What another program says of itself.
#pragma once

#include <string>
#include <vector>

namespace lockstep {

// The beginning of what the command prints, of output or error; empty where it cannot be started. It has five seconds.
std::string ask_program(const std::vector<std::string>& command);

}  // namespace lockstep
