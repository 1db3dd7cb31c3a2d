// SPDX-License-Identifier: Apache-2.0
#include "kernels/dropout/kernels.h"

namespace lockstep {

void register_dropout(Registry& r) {
  dropout::register_highway(r);
  dropout::register_reference(r);
}

}  // namespace lockstep
