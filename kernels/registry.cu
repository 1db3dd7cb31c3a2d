// SPDX-License-Identifier: Apache-2.0
// All GPU kernels, of rooms.h.
#include "kernels/core/kernel.h"
#include "kernels/gpu/device_code.h"
#include "kernels/rooms.h"

namespace lockstep::LOCKSTEP_DEVICE {

#define LOCKSTEP_DECLARE_GPU(room) void register_##room(Registry&, Device);
LOCKSTEP_ROOMS(LOCKSTEP_DECLARE_GPU)

void register_rooms(Registry& r, Device d) {
#define LOCKSTEP_REGISTER_GPU(room) register_##room(r, d);
  LOCKSTEP_ROOMS(LOCKSTEP_REGISTER_GPU)
}

}  // namespace lockstep::LOCKSTEP_DEVICE
