// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/kernel.h"
#include "kernels/rooms.h"

namespace lockstep {

#define LOCKSTEP_DECLARE(room) void register_##room(Registry&);
LOCKSTEP_ROOMS(LOCKSTEP_DECLARE)
LOCKSTEP_LIBRARY_ROOMS(LOCKSTEP_DECLARE)

namespace simt {
void register_rooms(Registry&, Device);  // kernels/registry.cu
}
#ifdef LOCKSTEP_HAS_CUDA
namespace cuda {
void register_rooms(Registry&, Device);
}
#endif

const Registry& Registry::builtin() {
  static const Registry registry = [] {
    Registry r;
#define LOCKSTEP_REGISTER(room) register_##room(r);
    LOCKSTEP_ROOMS(LOCKSTEP_REGISTER)
    simt::register_rooms(r, Device::simt);
#ifdef LOCKSTEP_HAS_CUDA
    cuda::register_rooms(r, Device::cuda);
#endif
    LOCKSTEP_LIBRARY_ROOMS(LOCKSTEP_REGISTER)
    return r;
  }();
  return registry;
}

}  // namespace lockstep
