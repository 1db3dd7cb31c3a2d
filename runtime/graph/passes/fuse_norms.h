// SPDX-License-Identifier: Apache-2.0
// Parts of fuse() (passes.h), and what they share with the others. Nodes are only marked while a pass walks,
// so that indices stay.
#pragma once

#include "runtime/graph/graph.h"

namespace lockstep {

inline constexpr const char* kGone = "";  // the op of a node that is to be dropped
void drop_gone(Graph&);

// z = group_norm(x), y = silu(z); and backwards silu_grad(z, dy), group_norm_grad(x, ...): one node each way,
// which makes z again from x. Only where nobody else reads z or its gradient.
void fuse_group_norm_silu(Graph&);

// z = batch_norm_apply(x, ...) or batch_norm_eval, z' = add(z, r), y = relu(z'): one node, each part where it
// is there and nobody else reads what comes before it. Backwards, without r, relu_grad(y, dy) goes into
// batch_norm_grad_sums and batch_norm_input_grad, which tell z's sign by x.
void fuse_batch_norm_relu(Graph&);

}  // namespace lockstep
