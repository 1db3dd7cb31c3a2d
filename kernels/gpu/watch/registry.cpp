// SPDX-License-Identifier: Apache-2.0
// Part of the watched kernels, not of the watch, which serves tests' kernels without them.
#include "kernels/core/kernel.h"
#include "kernels/gpu/watch/watch.h"

namespace lockstep {
namespace simt_watched {
void register_rooms(Registry&, Device);
}

const Registry& watched_registry() {
  static const Registry registry = [] {
    Registry r;
    simt_watched::register_rooms(r, Device::simt);
    return r;
  }();
  return registry;
}

}  // namespace lockstep
