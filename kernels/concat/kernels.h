// SPDX-License-Identifier: Apache-2.0
// This room's kernels, one function a file; register.cpp calls them.
#pragma once

#include "kernels/core/kernel.h"

namespace lockstep::concat {

void register_copy(Registry&);
void register_reference(Registry&);

}  // namespace lockstep::concat
