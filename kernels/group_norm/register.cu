// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/kernel.h"
#include "kernels/gpu/device_code.h"

namespace lockstep::LOCKSTEP_DEVICE {

void register_group_norm_pieces(Registry&, Device);
void register_group_norm_resident(Registry&, Device);

void register_group_norm(Registry& r, Device device) {
  register_group_norm_resident(r, device);
  register_group_norm_pieces(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
