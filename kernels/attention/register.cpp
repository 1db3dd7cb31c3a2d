// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/kernel.h"

namespace lockstep {

void add_attention_reference(Registry&);
void add_attention_tiled(Registry&);

void register_attention(Registry& r) {
  add_attention_tiled(r);
  add_attention_reference(r);
}

}  // namespace lockstep
