// Graph rewriting. Each pass keeps what the graph computes.
#pragma once

#include "kernels/core/kernel.h"
#include "runtime/graph/graph.h"

namespace lockstep {

// Copies a forward graph, giving every batch value the layout that its op prefers and inserting reorders between.
// Graph inputs stay plain, and on the GPU and its stand-in on the CPU all values do. Before autodiff: a gradient takes the layout of the value that it belongs to.
// `values` is updated to the copies of the values it holds.
Graph assign_layouts(const Graph& graph, std::vector<ValueId*> values, Device device = Device::cpu);

// Removes compute and view nodes of which nothing is read. Kept are nodes that write a value outside the arena
// (parameters, gradients, buffers, state, outputs) and collectives.
void remove_dead_nodes(Graph& graph);

// Puts a lone activation into the conv2d or linear that feeds it, a SiLU into the group_norm that feeds it
// and its gradient into group_norm_grad, and joins elementwise nodes into chains. After autodiff.
void fuse(Graph& graph);

}  // namespace lockstep
