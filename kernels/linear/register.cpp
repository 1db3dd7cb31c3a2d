#include "kernels/core/kernel.h"
#include "kernels/linear/reference.h"

namespace lockstep {

void register_linear(Registry& r) {
  const auto reference = [&](const char* op, auto f, bool shard) {
    r.add({.op = op,
           .name = "reference",
           .layout = LayoutClass::any,
           .bit_exact = {.threads = true, .shard = shard},
           .make = stateless<LinearParams>(f)});
  };
  reference("linear", linear_reference, true);
  reference("linear_input_grad", linear_input_grad_reference, true);
  reference("linear_weight_grad", linear_weight_grad_reference, false);
}

}  // namespace lockstep
