// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace lockstep::testing {

// Copies a program and gives the copy another GNU build id. False: `program` has none, and nothing was made.
bool make_other_build(const std::string& program, const std::string& copy);

}  // namespace lockstep::testing
