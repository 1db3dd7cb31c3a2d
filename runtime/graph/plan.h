// SPDX-License-Identifier: Apache-2.0
// A compiled graph: order, chosen kernels, memory offsets. What the executor runs and `lockstep plan` prints.
#pragma once

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/graph/graph.h"
#include "runtime/graph/kernel_table.h"
#include "runtime/graph/parameter_table.h"

namespace lockstep {

// A gradient bucket's allreduce, as the params of its node: floats [begin, end) of the flat gradient array.
// Without params (batch-norm sums) the node reduces its own value, on the statistics communicator.
struct BucketParams {
  int64_t begin = 0, end = 0;
  // So many floats at its beginning are the step's metrics.
  int64_t metrics() const { return std::clamp<int64_t>(kMetricsFloats - begin, 0, end - begin); }
  std::string text() const { return fmt::format("[{},{})", begin, end); }
};

struct Plan {
  Graph graph;                            // every compute node has its kernel's name
  std::vector<ValueId> root;              // per value: whose memory it uses (itself, or what it views)
  std::vector<int64_t> offset;            // per value: bytes from the arena's start; -1 outside the arena
  std::vector<int64_t> workspace_offset;  // per node
  int64_t arena_bytes = 0;
  int threads = 1;  // that its kernels use

  // Collectives in order, with what they move: equal on all ranks.
  std::string collective_schedule() const;
};

// Which activations are computed again in the backward pass instead of being kept.
struct Recompute {
  enum class Mode : uint8_t { none, blocks, automatic } mode = Mode::none;
  int64_t arena_bytes = 0;  // automatic: as few blocks as keep the arena within this
};

// Dead code out, fusion, precision, kernel choice, recomputation, memory. `choose` fills the table for the
// final graph. Error config (78) where recomputing every block leaves more than the bytes allowed.
Plan compile(Graph graph, KernelTable& table, const KernelChoice& how,
             const std::function<void(KernelTable&, const Graph&)>& choose, const Recompute& recompute = {});

// Bytes of everything that a rank allocates for training: flat arrays, arena, staging.
struct MemoryReport {
  int64_t parameters = 0, gradients = 0, state = 0, ema = 0, half = 0, buffers = 0, arena = 0;
  int64_t total() const { return parameters + gradients + state + ema + half + buffers + arena; }
};

// Bytes that a collective node takes from this rank, where gradients travel as `gradients`.
int64_t collective_bytes(const Graph& graph, const Node& node, DType gradients = DType::f32);
// Whether a node reads gradients that other ranks have added to, so that it waits for every bucket.
bool reads_summed_gradients(const Graph& graph, const Node& node);

nlohmann::json to_json(const Plan& plan);
std::string to_dot(const Plan& plan);
// Error config (78) E_TOO_LARGE where 64 bits do not hold them.
int64_t flops_of(const Graph& graph, const Node& node);
int64_t flops_of(const Graph& graph);

}  // namespace lockstep
