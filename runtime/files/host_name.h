// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace lockstep {

// Of this machine, for people; "unknown" where it has none.
std::string host_name();

}  // namespace lockstep
