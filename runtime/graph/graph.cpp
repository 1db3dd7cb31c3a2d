// SPDX-License-Identifier: Apache-2.0
#include "runtime/graph/graph.h"

#include "kernels/core/kernel.h"
#include "runtime/graph/op.h"

namespace lockstep {

std::vector<ValueId> Graph::values_in(Storage storage) const {
  std::vector<ValueId> found;
  for (ValueId v = 0; v < value_count(); ++v)
    if (value(v).storage == storage) found.push_back(v);
  return found;
}

std::vector<NodeId> Graph::producers() const {
  std::vector<NodeId> producer(values_.size(), -1);
  for (size_t n = 0; n < nodes_.size(); ++n)
    for (ValueId v : nodes_[n].out) producer[static_cast<size_t>(v)] = static_cast<NodeId>(n);
  return producer;
}

std::vector<std::vector<NodeId>> Graph::readers() const {
  std::vector<std::vector<NodeId>> readers(values_.size());
  for (size_t n = 0; n < nodes_.size(); ++n)
    for (ValueId v : nodes_[n].in) {
      auto& list = readers[static_cast<size_t>(v)];
      if (list.empty() || list.back() != static_cast<NodeId>(n)) list.push_back(static_cast<NodeId>(n));
    }
  return readers;
}

ValueId GraphBuilder::add_value(Value v) {
  try {
    if (const int64_t bytes = v.spec.bytes(); bytes >= kAddressable)
      throw Error(
          Exit::config, "E_TOO_LARGE",
          fmt::format("{} would be {} bytes, more than a process can address", v.spec.shape.text(), bytes));
  } catch (Error& e) {
    e.add_place("tensor", v.name);
    throw;
  }
  return graph_.add_value(std::move(v));
}

ValueId GraphBuilder::input(std::string name, TensorSpec spec, bool batch) {
  Value v;
  v.name = std::move(name);
  v.spec = spec;
  v.storage = Storage::input;
  v.batch = batch;
  return add_value(std::move(v));
}

ValueId GraphBuilder::parameter(const std::string& name, Shape shape, Init init) {
  Value v;
  v.name = network_ + name;
  v.spec = {DType::f32, shape, Layout::plain};
  v.storage = Storage::parameter;
  v.init = init;
  return add_value(std::move(v));
}

ValueId GraphBuilder::buffer(const std::string& name, Shape shape, float initial) {
  Value v;
  v.name = network_ + name;
  v.spec = {DType::f32, shape, Layout::plain};
  v.storage = Storage::buffer;
  v.init.constant = initial;
  return add_value(std::move(v));
}

std::vector<ValueId> GraphBuilder::add(std::string_view op, Params params, std::vector<ValueId> in) {
  const auto infer = op_def(op).infer;
  LOCKSTEP_ASSERT(infer != nullptr, "{} has no shape rule", op);
  const auto rules = infer(graph_, params, in);
  return add_as(op, std::move(params), std::move(in), rules);
}

std::vector<ValueId> GraphBuilder::add_as(std::string_view op, Params params, std::vector<ValueId> in,
                                          const std::vector<OutputRule>& out) {
  constexpr size_t kMostNodes =
      1 << 18;  // a hundred times those of the largest nets, and no minutes to compile
  if (graph_.nodes().size() >= kMostNodes)
    throw Error(Exit::config, "E_TOO_LARGE", fmt::format("the model has more than {} ops", kMostNodes))
        .at("layer", scope_)
        .hint("fewer layers");
  Node n;
  n.op = op;
  n.params = std::move(params);
  n.in = std::move(in);
  n.name = scope_;
  n.block = block_;
  n.backward = backward_;
  for (const auto& rule : out) {
    Value v;
    v.name = scope_;
    v.spec = rule.spec;
    v.batch = rule.batch;
    v.is_gradient = rule.is_gradient;
    n.out.push_back(add_value(std::move(v)));
  }
  const auto made = n.out;
  graph_.add_node(std::move(n));
  return made;
}

ValueId GraphBuilder::elementwise(Elt elt, std::vector<ValueId> in, float imm) {
  ElementwiseParams p;
  p.inputs = static_cast<int>(in.size());
  LOCKSTEP_ASSERT(p.inputs == operand_count(elt));
  p.code.push_back({elt, 0, p.inputs == 2 ? 1 : 0, imm});
  p.outputs = {p.inputs};
  bool gradient = false;
  for (ValueId v : in) gradient |= graph_.value(v).is_gradient;
  const ValueId y = add1("elementwise", p, std::move(in));
  graph_.value(y).is_gradient = gradient;
  return y;
}

ValueId GraphBuilder::view(ValueId x, Shape shape) {
  const TensorSpec& from = spec(x);
  LOCKSTEP_ASSERT(from.layout != Layout::nhwc || from.shape == shape, "a view of an nhwc image");
  return view_as(x, {from.dtype, shape, from.layout});
}

ValueId GraphBuilder::tokens(ValueId image) {
  const TensorSpec x = spec(image);
  LOCKSTEP_ASSERT(x.shape.rank() == 4, "tokens of {}", x.text());
  const Shape tokens{x.shape[0], x.shape.elements_from(2), x.shape[1]};
  return view_as(reorder(image, Layout::nhwc), {x.dtype, tokens, Layout::plain});
}

ValueId GraphBuilder::image(ValueId tokens, int64_t height, int64_t width) {
  const TensorSpec x = spec(tokens);
  LOCKSTEP_ASSERT(x.shape.rank() == 3 && x.shape[1] == height * width, "an image {}x{} of {}", height, width,
                  x.text());
  const Shape image{x.shape[0], x.shape[2], height, width};
  return reorder(view_as(reorder(tokens, Layout::plain), {x.dtype, image, Layout::nhwc}), Layout::plain);
}

ValueId GraphBuilder::view_as(ValueId x, const TensorSpec& spec) {
  Value v = graph_.value(x);
  LOCKSTEP_ASSERT(spec.dtype == v.spec.dtype && spec.shape.elements() == v.spec.shape.elements(), "{} as {}",
                  v.spec.text(), spec.text());
  v.spec = spec;
  v.storage = Storage::arena;
  Node n;
  n.op = "view";
  n.kind = NodeKind::view;
  n.in = {x};
  n.out = {add_value(v)};
  n.name = scope_;
  n.block = block_;
  n.backward = backward_;
  const ValueId y = n.out[0];
  graph_.add_node(std::move(n));
  return y;
}

ValueId GraphBuilder::all_gather(ValueId x, int ranks) {
  Shape shape{ranks};
  for (int i = 0; i < spec(x).shape.rank(); ++i) shape.push_back(spec(x).shape[i]);
  if (ranks == 1) return view(x, shape);
  Node n;
  n.op = "all_gather";
  n.kind = NodeKind::all_gather;
  n.in = {x};
  n.name = scope_;
  n.block = block_;
  n.backward = backward_;
  Value v;
  v.name = scope_;
  v.spec = {DType::f32, shape, Layout::plain};
  n.out = {add_value(v)};
  const ValueId y = n.out[0];
  graph_.add_node(std::move(n));
  return y;
}

ValueId GraphBuilder::allreduce(ValueId x) {
  Node n;
  n.op = "allreduce";
  n.kind = NodeKind::allreduce;
  n.in = {x};
  n.name = scope_;
  n.block = block_;
  n.backward = backward_;
  Value v = graph_.value(x);
  n.out = {add_value(v)};
  const ValueId y = n.out[0];
  graph_.add_node(std::move(n));
  return y;
}

ValueId GraphBuilder::reorder(ValueId x, Layout layout) {
  if (spec(x).layout == layout) return x;
  const Value v = graph_.value(x);
  TensorSpec to = v.spec;
  to.layout = layout;
  return add_as("reorder", NoParams{}, {x}, {{to, v.batch, v.is_gradient}})[0];
}

}  // namespace lockstep
