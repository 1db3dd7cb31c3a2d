// SPDX-License-Identifier: Apache-2.0
#include "kernels/cast/cast.h"

namespace lockstep {

void register_cast(Registry& r) {
  cast::register_highway(r);
  cast::register_reference(r);
}

}  // namespace lockstep
