#include "kernels/core/kernel.h"

namespace lockstep {

void add_optimizer_reference(Registry&);

void register_optimizer(Registry& r) { add_optimizer_reference(r); }

}  // namespace lockstep
