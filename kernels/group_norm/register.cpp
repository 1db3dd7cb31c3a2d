#include "kernels/core/kernel.h"

namespace lockstep {

void register_group_norm(Registry&) {}

}  // namespace lockstep
