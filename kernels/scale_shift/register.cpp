// SPDX-License-Identifier: Apache-2.0
#include "kernels/scale_shift/kernels.h"

namespace lockstep {

void register_scale_shift(Registry& r) {
  scale_shift::register_highway(r);
  scale_shift::register_reference(r);
}

}  // namespace lockstep
