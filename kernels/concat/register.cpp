// SPDX-License-Identifier: Apache-2.0
#include "kernels/concat/kernels.h"

namespace lockstep {

void register_concat(Registry& r) {
  concat::register_copy(r);
  concat::register_reference(r);
}

}  // namespace lockstep
