// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/kernel.h"

namespace lockstep {

void add_batch_norm_reference(Registry&);
void add_batch_norm_sums(Registry&);
void add_batch_norm_elementwise(Registry&);

// merge, running and affine_grad are a few operations a channel; the reference is all they need.
void register_batch_norm(Registry& r) {
  add_batch_norm_reference(r);
  add_batch_norm_sums(r);
  add_batch_norm_elementwise(r);
}

}  // namespace lockstep
