// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/kernel.h"
#include "kernels/gpu/device_code.h"

namespace lockstep::LOCKSTEP_DEVICE {

void register_avg_pool2d(Registry&, Device);
void register_max_pool2d(Registry&, Device);

void register_pool2d(Registry& r, Device device) {
  register_max_pool2d(r, device);
  register_avg_pool2d(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
