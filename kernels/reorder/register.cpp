// SPDX-License-Identifier: Apache-2.0
#include "kernels/reorder/kernels.h"

namespace lockstep {

void register_reorder(Registry& r) {
  reorder::register_highway(r);
  reorder::register_reference(r);
}

}  // namespace lockstep
