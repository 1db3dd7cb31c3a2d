// SPDX-License-Identifier: Apache-2.0
#include "kernels/image_augment/kernels.h"

namespace lockstep {

void register_image_augment(Registry& r) {
  image_augment::register_rows(r);
  image_augment::register_reference(r);
}

}  // namespace lockstep
