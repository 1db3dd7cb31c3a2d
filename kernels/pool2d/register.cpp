// SPDX-License-Identifier: Apache-2.0
#include "kernels/pool2d/kernels.h"

namespace lockstep {

void register_pool2d(Registry& r) {
  pool2d::register_windowed(r);
  pool2d::register_reference(r);
}

}  // namespace lockstep
