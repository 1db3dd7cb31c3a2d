// SPDX-License-Identifier: Apache-2.0
#include "kernels/optimizer/optimizer.h"

#include "runtime/graph/ops/rules.h"

namespace lockstep {

std::vector<OpDef> optimizer_ops() {
  OpDef norm{"grad_norm"}, step{"optimizer_step"};
  // sgd: about 4 operations an element, adam: about 12.
  step.flops = [](const Graph& g, const Node& n) {
    return operations({elements_of(g, n.in[0]),
                       n.params.as<OptimizerParams>().kind == OptimizerParams::Kind::sgd ? 4 : 12});
  };
  return {norm, step};
}

}  // namespace lockstep
