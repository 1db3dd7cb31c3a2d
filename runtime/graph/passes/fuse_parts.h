// SPDX-License-Identifier: Apache-2.0
// Parts of fuse() (passes.h), and what they share with the others. Nodes are only marked while a pass walks,
// so that indices stay.
#pragma once

#include "kernels/elementwise/elementwise.h"
#include "runtime/graph/graph.h"

namespace lockstep {

inline constexpr const char* kGone = "";  // the op of a node that is to be dropped
void drop_gone(Graph&);

// An elementwise node of this instruction alone.
bool is_lone(const Node&, Elt);

// z = group_norm(x), y = silu(z); and backwards silu_grad(z, dy), group_norm_grad(x, ...): one node each way,
// which makes z again from x. Only where nobody else reads z or its gradient.
void fuse_group_norm_silu(Graph&);

// z = batch_norm_apply(x, ...) or batch_norm_eval, z' = add(z, r), y = relu(z'): one node, each part where it
// is there and nobody else reads what comes before it. Backwards, without r, relu_grad(y, dy) goes into
// batch_norm_grad_sums and batch_norm_input_grad, which tell z's sign by x.
void fuse_batch_norm_relu(Graph&);

// y = relu(max_pool2d(x)), or max_pool2d(relu(x)), which is the same: the pooling does it. Backwards relu_grad goes, as the
// pooling's index says where no maximum was above zero. Only where nobody else reads what lies between the two.
void fuse_max_pool_relu(Graph&);

}  // namespace lockstep
