// SPDX-License-Identifier: Apache-2.0
// Reverse-mode differentiation as graph rewriting: appends the gradient nodes of each op to the graph.
#pragma once

#include <map>

#include "runtime/graph/graph.h"

namespace lockstep {

// `seeds`: (value, its gradient) to start from, usually the logits and the loss's gradient. `wanted`:
// parameters. Returns each wanted parameter's gradient value (kNoValue where the loss doesn't depend on it).
// Nodes are taken in reverse order, so gradients come out in reverse order of use.
std::map<ValueId, ValueId> append_gradients(GraphBuilder& builder, const std::map<ValueId, ValueId>& seeds,
                                            const std::vector<ValueId>& wanted);

}  // namespace lockstep
