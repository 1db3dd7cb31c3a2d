// SPDX-License-Identifier: Apache-2.0
#include "kernels/layer_norm/kernels.h"

namespace lockstep {

void register_layer_norm(Registry& r) {
  layer_norm::register_highway(r);
  layer_norm::register_reference(r);
}

}  // namespace lockstep
