// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/kernel.h"

namespace lockstep {

void add_loss_reference(Registry&);
void add_loss_simd(Registry&);

void register_loss(Registry& r) {
  add_loss_reference(r);
  add_loss_simd(r);
}

}  // namespace lockstep
