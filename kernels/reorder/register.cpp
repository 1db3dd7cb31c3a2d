#include "kernels/core/kernel.h"

namespace lockstep {

void register_reorder(Registry&) {}

}  // namespace lockstep
