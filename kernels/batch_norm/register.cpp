#include "kernels/core/kernel.h"

namespace lockstep {

void register_batch_norm(Registry&) {}

}  // namespace lockstep
