// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/kernel.h"

namespace lockstep {

void add_group_norm_reference(Registry&);
void add_group_norm_simd(Registry&);

void register_group_norm(Registry& r) {
  add_group_norm_reference(r);
  add_group_norm_simd(r);
}

}  // namespace lockstep
