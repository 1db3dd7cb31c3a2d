// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace lockstep {

// The GNU build id among the program's notes, in hexadecimal: another one where its code is. "": it was linked without one.
std::string build_id();

}  // namespace lockstep
