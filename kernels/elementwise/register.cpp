// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise/kernels.h"

namespace lockstep {

void register_elementwise(Registry& r) {
  elementwise::register_highway(r);
  elementwise::register_reference(r);
}

}  // namespace lockstep
