#include "kernels/core/kernel.h"

namespace lockstep {

void register_loss(Registry&) {}

}  // namespace lockstep
