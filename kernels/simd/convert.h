// SPDX-License-Identifier: Apache-2.0
// Between f32 and bf16, which is rounded to as bf16.h says.
#pragma once

#include "kernels/core/tensor.h"

namespace lockstep {

// to = from, element by element as they are stored; equal shapes and layouts, one of them f32 and the other
// bf16.
void convert(const View& from, const View& to, int threads);

}  // namespace lockstep
