// SPDX-License-Identifier: Apache-2.0
// This room's kernels, one function a file; register.cpp calls them.
#pragma once

#include "kernels/core/kernel.h"

namespace lockstep::scale_shift {

void register_highway(Registry&);
void register_reference(Registry&);

// Of either op: whether it is the form with a scale.
inline bool has_scale(const KernelArgs& args) { return args.in.size() == 3; }

}  // namespace lockstep::scale_shift
