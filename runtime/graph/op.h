// SPDX-License-Identifier: Apache-2.0
// What the graph knows of an op: shapes, gradient, cost. One file per op (or family) in runtime/graph/ops/.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/graph/graph.h"

namespace lockstep {

struct OpDef {
  std::string name;
  // Outputs from inputs and parameters. Throws Error(Exit::config, "E_SHAPE") naming the shapes when they
  // don't fit. Null for gradient ops, which are added with GraphBuilder::add_as.
  std::vector<OutputRule> (*infer)(const Graph&, const Params&, std::span<const ValueId> in) = nullptr;
  // Given d loss / d output (kNoValue where nothing flows), emits the gradients of the inputs: one entry per
  // input, kNoValue where none is wanted or none exists. `wanted[i]`: whether input i's gradient is needed.
  std::vector<ValueId> (*gradient)(GraphBuilder&, const Node&, std::span<const ValueId> dy,
                                   const std::vector<bool>& wanted) = nullptr;
  // Floating-point operations; null: about one per element of the largest tensor.
  int64_t (*flops)(const Graph&, const Node&) = nullptr;
  // Outputs that may take an input's memory when that input is not read later: (input, output).
  std::vector<std::pair<int, int>> in_place;
  // The layout that suits these shapes best; null: that of input 0.
  Layout (*preferred_layout)(const Graph&, const Node&) = nullptr;
  // In a job of precision bf16 (lower_precision() in passes.h): an op that gains by it wants bf16, others
  // take it where their inputs have it; losses never do, nor those that stand next to them. Which inputs and
  // outputs; left out: the f32 ones that follow the batch.
  enum class Bf16 : uint8_t { follows, wants, never } bf16 = Bf16::follows;
  std::optional<std::vector<int>> bf16_in, bf16_out;
};

// The op of that name; asserts that it exists.
const OpDef& op_def(std::string_view name);
std::vector<std::string> op_names();

}  // namespace lockstep
