// SPDX-License-Identifier: Apache-2.0
// Op
//   cast    in: x    out: y = x, one of them f32 and the other bf16
// Same shape, same layout (any); to bf16 it rounds as core/bf16.h says. Needs NoParams.
#pragma once

#include "kernels/core/kernel.h"

namespace lockstep::cast {

// Whether the op is asked for as described.
inline bool served(const KernelRequest& r) {
  const TensorSpec &x = r.in[0], &y = r.out[0];
  const bool types =
      (x.dtype == DType::f32 && y.dtype == DType::bf16) || (x.dtype == DType::bf16 && y.dtype == DType::f32);
  return types && x.shape == y.shape && x.layout == y.layout;
}

void register_highway(Registry&);
void register_reference(Registry&);

}  // namespace lockstep::cast
