// SPDX-License-Identifier: Apache-2.0
// This room's kernels, one function a file; register.cpp calls them.
#pragma once

#include "kernels/core/kernel.h"

namespace lockstep::embedding {

void register_reference(Registry&);
void register_rows(Registry&);

}  // namespace lockstep::embedding
