// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/kernel.h"

namespace lockstep {

void add_optimizer_reference(Registry&);
void add_optimizer_simd(Registry&);

void register_optimizer(Registry& r) {
  add_optimizer_reference(r);
  add_optimizer_simd(r);
}

}  // namespace lockstep
