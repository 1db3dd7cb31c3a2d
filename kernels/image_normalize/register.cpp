// SPDX-License-Identifier: Apache-2.0
#include "kernels/image_normalize/kernels.h"

namespace lockstep {

void register_image_normalize(Registry& r) {
  image_normalize::register_highway(r);
  image_normalize::register_reference(r);
}

}  // namespace lockstep
