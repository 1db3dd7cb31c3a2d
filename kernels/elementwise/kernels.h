// SPDX-License-Identifier: Apache-2.0
// This room's kernels, one function a file; register.cpp calls them.
#pragma once

#include "kernels/core/kernel.h"

namespace lockstep::elementwise {

void register_highway(Registry&);
void register_reference(Registry&);

// Asserts what elementwise.h asks of a program and its tensors.
void check(const KernelRequest& request);

}  // namespace lockstep::elementwise
