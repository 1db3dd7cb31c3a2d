// SPDX-License-Identifier: Apache-2.0
// The graph: values with static shapes and dtypes, joined by ops, in the order they were added (which is a
// valid execution order). One graph is one step: forward, loss, gradients, collectives, optimizer.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/params.h"
#include "kernels/core/tensor.h"
#include "kernels/elementwise/elementwise.h"

namespace lockstep {

using ValueId = int32_t;
using NodeId = int32_t;
inline constexpr ValueId kNoValue = -1;

// Where a value lives.
enum class Storage : uint8_t {
  arena,        // for part of a step, at an offset that the memory plan gives
  parameter,    // flat arrays that live as long as the executor; sliced by the parameter table
  gradient,     // named as its parameter; kMetrics: the step's metrics at the array's start
  partial_sum,  // of gradients over micro-batches, in array `level`; named as gradients are
  state,        // optimizer state
  ema,          // the parameters' moving average; of frozen ones themselves
  half,         // the parameters rounded to bf16
  buffer,       // running statistics
  input,        // written by the host before a run: images, labels, step state
  output,       // read by the host after a run
};
// Names of values that are not one tensor of the model: a whole flat array (of optimizer state: "*0", "*1"),
// and the metrics.
inline constexpr const char* kWholeArray = "*";
inline constexpr const char* kMetrics = "metrics";

// How an initial value is drawn.
struct Init {
  enum class Kind : uint8_t { constant, uniform, normal } kind = Kind::constant;
  float constant = 0;
  float bound = 0;      // uniform in [-bound, bound)
  float deviation = 0;  // normal around 0
};

struct Value {
  std::string name;  // parameters and buffers: the tensor's name as PyTorch has it; else for reading only
  TensorSpec spec;
  Storage storage = Storage::arena;
  Init init;                 // parameter, buffer
  bool batch = false;        // dimension 0 is this rank's part of the batch: takes part in layout assignment
  int level = 0;             // partial_sum: which array, from 1 on
  bool is_gradient = false;  // a gradient of an activation (padding lanes are zero)
};

enum class NodeKind : uint8_t {
  compute,  // a kernel of the registry
  view,     // output 0 is input 0's memory under another shape; "tokens" and "image" under another layout too
  allreduce,   // sum over ranks, in place; asynchronous, waited for by its first reader
  all_gather,  // output [R, ...] of input [...]
};

struct Node {
  std::string op;  // registry's op name; "view", "allreduce", "all_gather" otherwise
  NodeKind kind = NodeKind::compute;
  Params params;
  std::vector<ValueId> in, out;
  std::string name;   // the layer it came from: "conv1", "3.layers.0"
  std::string block;  // the part of the model that is recomputed as one; "": none
  bool backward = false;
  std::string kernel;  // chosen by the plan
};

class Graph {
 public:
  ValueId add_value(Value v) {
    values_.push_back(std::move(v));
    return static_cast<ValueId>(values_.size()) - 1;
  }
  NodeId add_node(Node n) {
    nodes_.push_back(std::move(n));
    return static_cast<NodeId>(nodes_.size()) - 1;
  }
  Value& value(ValueId id) { return values_[static_cast<size_t>(id)]; }
  const Value& value(ValueId id) const { return values_[static_cast<size_t>(id)]; }
  std::vector<Node>& nodes() { return nodes_; }
  const std::vector<Node>& nodes() const { return nodes_; }
  int32_t value_count() const { return static_cast<int32_t>(values_.size()); }
  std::vector<ValueId> values_in(Storage storage) const;

  // For every value: its producer (or -1) and its readers, in order.
  std::vector<NodeId> producers() const;
  std::vector<std::vector<NodeId>> readers() const;

 private:
  std::vector<Value> values_;
  std::vector<Node> nodes_;
};

struct OutputRule {
  TensorSpec spec;
  bool batch = true;  // dimension 0 is this rank's part of the batch
  bool is_gradient = false;
};

// Builds nodes with shapes inferred and checked: what a model and the autodiff speak.
class GraphBuilder {
 public:
  explicit GraphBuilder(Graph& graph) : graph_(graph) {}
  Graph& graph() { return graph_; }

  ValueId input(std::string name, TensorSpec spec, bool batch);
  ValueId parameter(const std::string& name, Shape shape, Init init);
  ValueId buffer(const std::string& name, Shape shape, float initial);
  // A compute node of `op`; outputs are made by the op's shape rule.
  std::vector<ValueId> add(std::string_view op, Params params, std::vector<ValueId> in);
  ValueId add1(std::string_view op, Params params, std::vector<ValueId> in) {
    return add(op, std::move(params), std::move(in))[0];
  }
  // The same with outputs given: for gradient ops, whose outputs are shaped like values that exist.
  std::vector<ValueId> add_as(std::string_view op, Params params, std::vector<ValueId> in,
                              const std::vector<OutputRule>& out);
  // One elementwise instruction over one or two values.
  ValueId elementwise(Elt elt, std::vector<ValueId> in, float imm = 0);
  ValueId view(ValueId x, Shape shape);
  // Tokens [N, H*W, C] of an image [N, C, H, W], and an image of tokens [N, height*width, C]: views of an image in
  // nhwc. The layout pass leaves out the reorders around them where images are in nhwc.
  ValueId tokens(ValueId image);
  ValueId image(ValueId tokens, int64_t height, int64_t width);
  // x's memory as another tensor of as many elements.
  ValueId view_as(ValueId x, const TensorSpec& spec);
  ValueId all_gather(ValueId x, int ranks);
  ValueId allreduce(ValueId x);  // in place: the result is x's memory under a new value
  ValueId reorder(ValueId x, Layout layout);

  // Parameters, buffers and layers added from here on belong to the network of this name: "unet" puts "unet." before
  // theirs. "": a model that is one network.
  void set_network(const std::string& name) { network_ = name.empty() ? "" : name + "."; }
  // Nodes added from here on carry this name and direction.
  void set_scope(const std::string& name) { scope_ = network_ + name; }
  const std::string& scope() const { return scope_; }
  void set_block(const std::string& name) { block_ = name.empty() ? "" : network_ + name; }
  const std::string& block() const { return block_; }
  void set_backward(bool b) { backward_ = b; }
  const TensorSpec& spec(ValueId v) const { return graph_.value(v).spec; }

 private:
  // Error config (78) E_TOO_LARGE that names a tensor which no machine can address.
  ValueId add_value(Value v);
  Graph& graph_;
  std::string network_, scope_, block_;
  bool backward_ = false;
};

}  // namespace lockstep
