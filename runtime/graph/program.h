// SPDX-License-Identifier: Apache-2.0
// What models add to a graph: the nodes of a network, and programs, which are graphs with named ports.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>

#include "kernels/core/kernel.h"
#include "runtime/graph/graph.h"

namespace lockstep {

// What a function that adds a network's nodes needs beside the network's inputs.
struct ModelContext {
  GraphBuilder& builder;
  bool training = true;
  int ranks = 1;                  // batch norm's statistics meet over so many
  ValueId step_state = kNoValue;  // dropout reads it
  uint32_t dropouts = 0;          // dropout layers so far
};

// Values that later parts of a graph go on from, by name. They stay valid when layouts are assigned, which
// copies the graph.
class NamedValues {
 public:
  ValueId& operator[](std::string_view name) { return values_[std::string(name)]; }
  ValueId at(std::string_view name) const {
    const auto it = values_.find(name);
    LOCKSTEP_ASSERT(it != values_.end(), "no value {}", name);
    return it->second;
  }
  std::vector<ValueId*> all() {
    std::vector<ValueId*> values;
    for (auto& [name, value] : values_) values.push_back(&value);
    return values;
  }

 private:
  std::map<std::string, ValueId, std::less<>> values_;
};
// What a model ends in.
inline constexpr std::string_view kResult = "result";

// Adds the input ports for so many samples and the networks' nodes.
using ForwardFunction = std::function<void(ModelContext&, int64_t batch, NamedValues&)>;

// A graph over a model's networks, for any number of samples.
struct Program {
  std::string name;
  ForwardFunction forward;
  // Adds the output ports (add_output), once layouts are assigned.
  std::function<void(GraphBuilder&, NamedValues&)> outputs;
};

// How a program becomes a graph here.
struct GraphSpec {
  int64_t batch = 1;  // this rank's samples
  int ranks = 1;
  Device device = Device::cpu;  // decides the layouts
  DType activations = DType::f32;
  bool use_ema = false;  // the parameters' moving average is read in their place
};

// A graph that is being built.
struct PartialGraph {
  Graph graph;
  NamedValues values;
};
// The forward part as it was written, the step state being an input of it.
PartialGraph build_forward(const ForwardFunction& forward, const GraphSpec& spec, bool training);
// The same with layouts assigned.
PartialGraph build_laid_out(const ForwardFunction& forward, const GraphSpec& spec, bool training);
Graph build_program(const Program& program, const GraphSpec& spec);

// The value becomes an output port, plain.
void add_output(GraphBuilder& b, ValueId value, const char* name);

}  // namespace lockstep
