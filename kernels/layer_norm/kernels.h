// SPDX-License-Identifier: Apache-2.0
// This room's kernels, one function a file; register.cpp calls them.
#pragma once

#include "kernels/core/kernel.h"

namespace lockstep::layer_norm {

void register_highway(Registry&);
void register_reference(Registry&);

}  // namespace lockstep::layer_norm
