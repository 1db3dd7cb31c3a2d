// SPDX-License-Identifier: Apache-2.0
#include "kernels/geglu/kernels.h"

namespace lockstep {

void register_geglu(Registry& r) {
  geglu::register_highway(r);
  geglu::register_reference(r);
}

}  // namespace lockstep
