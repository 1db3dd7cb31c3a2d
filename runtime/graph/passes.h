// SPDX-License-Identifier: Apache-2.0
// Graph rewriting. Each pass keeps what the graph computes.
#pragma once

#include <set>

#include "kernels/core/kernel.h"
#include "runtime/graph/graph.h"
#include "runtime/graph/kernel_table.h"

namespace lockstep {

// Copies a forward graph, giving every batch value the layout that its op prefers and inserting reorders
// between. Graph inputs stay plain. Samples in lanes are for f32 on a CPU: elsewhere what prefers them is
// plain. Before autodiff: a gradient takes the layout of the value that it belongs to.
// `values` is updated to the copies of the values it holds.
Graph assign_layouts(const Graph& graph, const std::vector<ValueId*>& values, Device device = Device::cpu,
                     DType activations = DType::f32);

// Removes compute and view nodes of which nothing is read. Kept are nodes that write a value outside the
// arena (parameters, gradients, buffers, state, outputs) and collectives.
void remove_dead_nodes(Graph& graph);

// Puts a lone activation into the conv2d or linear that feeds it, a SiLU into the group_norm that feeds it
// and its gradient into group_norm_grad, a sum and a ReLU into the batch norm that feeds them and the ReLU's
// gradient into the norm's, and joins elementwise nodes into chains. After autodiff.
void fuse(Graph& graph);

// Of the blocks named here (Node::block), what the backward pass needs is computed again right before it is
// needed, by copies of the forward nodes, instead of being kept. Values that other blocks read stay. The same
// kernels on the same numbers: bits do not change. On a training graph, after fusion.
void recompute(Graph& graph, const std::set<std::string>& blocks);
// The blocks that this would save memory in, in order, with the bytes that it would not keep.
struct RecomputableBlock {
  std::string name;
  int64_t bytes = 0;
};
std::vector<RecomputableBlock> recomputable_blocks(const Graph& graph);

// Where `how` asks for bf16: each node that may be bf16 (op.h), and has a kernel for it on this device,
// becomes so, and casts stand where its neighbours differ. Sums over the batch, statistics, losses,
// parameters and their gradients stay fp32; weights are read from the array of bf16 copies that the optimizer
// writes, in graphs without a backward part through a cast. The last of the passes; value ids stay.
void lower_precision(Graph& graph, const KernelChoice& how);

}  // namespace lockstep
