#include "kernels/core/kernel.h"

namespace lockstep {

void add_batch_norm_reference(Registry&);

void register_batch_norm(Registry& r) { add_batch_norm_reference(r); }

}  // namespace lockstep
