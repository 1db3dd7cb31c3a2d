// SPDX-License-Identifier: Apache-2.0
// This room's kernels, one function a file; register.cpp calls them.
#pragma once

#include "kernels/core/kernel.h"

namespace lockstep::geglu {

void register_highway(Registry&);
void register_reference(Registry&);

// C of y or dy, and its rows.
inline int64_t columns(const View& y) { return y.dim(y.shape().rank() - 1); }
inline int64_t rows(const View& y) {
  int64_t n = 1;
  for (int i = 0; i + 1 < y.shape().rank(); ++i) n *= y.dim(i);
  return n;
}

}  // namespace lockstep::geglu
