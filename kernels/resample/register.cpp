// SPDX-License-Identifier: Apache-2.0
#include "kernels/resample/kernels.h"

namespace lockstep {

void register_resample(Registry& r) {
  resample::register_highway(r);
  resample::register_reference(r);
}

}  // namespace lockstep
