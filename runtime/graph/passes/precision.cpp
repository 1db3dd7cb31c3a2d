// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "runtime/graph/op.h"
#include "runtime/graph/passes.h"

namespace lockstep {
namespace {

using Slots = std::vector<int>;

bool contains(const Slots& slots, size_t i) {
  return std::find(slots.begin(), slots.end(), static_cast<int>(i)) != slots.end();
}

class Lowering {
 public:
  Lowering(Graph& g, const KernelChoice& how)
      : g_(g),
        how_(how),
        trains_(std::any_of(g.nodes().begin(), g.nodes().end(), [](const Node& n) { return n.backward; })),
        parameter_(static_cast<size_t>(g.value_count()), kNoValue) {
    for (ValueId v : g.values_in(Storage::parameter)) parameter_[static_cast<size_t>(v)] = v;
    std::vector<ValueId> viewed(parameter_.size());
    std::iota(viewed.begin(), viewed.end(), 0);
    for (const Node& n : g.nodes()) {
      if (n.kind == NodeKind::view)
        viewed[static_cast<size_t>(n.out[0])] = viewed[static_cast<size_t>(n.in[0])];
      if (n.kind != NodeKind::compute || op_def(n.op).bf16 != OpDef::Bf16::never) continue;
      for (const auto& list : {n.in, n.out})
        for (ValueId v : list) exact_.insert(viewed[static_cast<size_t>(v)]);
    }
  }

  void run() {
    std::vector<Node> nodes;
    std::swap(nodes, g_.nodes());
    for (Node& n : nodes) {
      if (n.kind == NodeKind::view) {
        g_.value(n.out[0]).spec.dtype = g_.value(n.in[0]).spec.dtype;
        parameter_[static_cast<size_t>(n.out[0])] = parameter_of(n.in[0]);
        g_.add_node(std::move(n));
      } else {
        lower(std::move(n));
      }
    }
  }

 private:
  void lower(Node n) {
    const OpDef* op = n.kind == NodeKind::compute ? &op_def(n.op) : nullptr;
    Slots in, out;
    const auto exact = [&](ValueId v) { return exact_.contains(v); };
    if (op && op->bf16 != OpDef::Bf16::never && std::none_of(n.in.begin(), n.in.end(), exact) &&
        std::none_of(n.out.begin(), n.out.end(), exact)) {
      in = op->bf16_in.value_or(of_the_batch(n.in));
      out = op->bf16_out.value_or(of_the_batch(n.out));
      const bool some = std::any_of(in.begin(), in.end(), [&](int i) {
        return static_cast<size_t>(i) < n.in.size() && is_bf16(n.in[static_cast<size_t>(i)]);
      });
      if ((op->bf16 != OpDef::Bf16::wants && !some) || !has_kernel(n, in, out)) in = out = {};
    }
    for (size_t i = 0; i < n.in.size(); ++i)
      if (is_float(n.in[i]) &&
          g_.value(n.in[i]).storage != Storage::half)  // which the optimizer writes itself
        n.in[i] = as(n.in[i], contains(in, i) ? DType::bf16 : DType::f32, n);
    std::vector<Node> after;
    for (size_t o = 0; o < n.out.size(); ++o) {
      if (!contains(out, o)) continue;
      if (g_.value(n.out[o]).storage == Storage::arena) {
        g_.value(n.out[o]).spec.dtype = DType::bf16;
      } else {  // written for others, who expect f32
        const ValueId f32 = n.out[o];
        n.out[o] = typed_copy(f32, DType::bf16);
        after.push_back(cast(n.out[o], f32, n));
      }
    }
    g_.add_node(std::move(n));
    for (Node& c : after) g_.add_node(std::move(c));
  }

  bool is_bf16(ValueId v) const { return g_.value(v).spec.dtype == DType::bf16; }
  bool is_float(ValueId v) const { return is_bf16(v) || g_.value(v).spec.dtype == DType::f32; }
  ValueId parameter_of(ValueId v) const {
    return static_cast<size_t>(v) < parameter_.size() ? parameter_[static_cast<size_t>(v)] : kNoValue;
  }

  Slots of_the_batch(const std::vector<ValueId>& values) const {
    Slots slots;
    for (size_t i = 0; i < values.size(); ++i)
      if (g_.value(values[i]).batch && is_float(values[i])) slots.push_back(static_cast<int>(i));
    return slots;
  }

  // One that takes these inputs and outputs in bf16, all others in f32.
  bool has_kernel(const Node& n, const Slots& in, const Slots& out) const {
    if (in.empty() && out.empty()) return false;
    const auto specs = [&](const std::vector<ValueId>& values, const Slots& slots) {
      std::vector<TensorSpec> all;
      for (size_t i = 0; i < values.size(); ++i) {
        all.push_back(g_.value(values[i]).spec);
        if (is_float(values[i])) all.back().dtype = contains(slots, i) ? DType::bf16 : DType::f32;
      }
      return all;
    };
    const auto in_specs = specs(n.in, in), out_specs = specs(n.out, out);
    const KernelRequest request{n.params, in_specs, out_specs, how_.threads};
    const auto kernels = Registry::builtin().candidates(n.op, how_.device, request);
    return std::any_of(kernels.begin(), kernels.end(),
                       [&](const KernelInfo* k) { return k->make(request) != nullptr; });
  }

  ValueId typed_copy(ValueId v, DType dtype) {
    Value copy = g_.value(v);
    copy.spec.dtype = dtype;
    copy.storage = Storage::arena;
    return g_.add_value(std::move(copy));
  }

  static Node cast(ValueId from, ValueId to, const Node& beside) {
    Node c;
    c.op = "cast";
    c.params = NoParams{};
    c.in = {from}, c.out = {to};
    c.name = beside.name;
    c.block = beside.block;
    c.backward = beside.backward;
    return c;
  }

  // The value in that type: itself, a parameter's copy, or a cast's result. A bf16 one is kept from forward
  // for backward, in place of twice as many bytes of f32; an f32 one is made again from its bf16.
  ValueId as(ValueId v, DType dtype, const Node& reader) {
    if (g_.value(v).spec.dtype == dtype) return v;
    const auto key = std::tuple{v, dtype, reader.backward && dtype == DType::f32};
    if (const auto it = typed_.find(key); it != typed_.end()) return it->second;
    const ValueId to = typed_copy(v, dtype);
    if (const ValueId p = parameter_of(v); p != kNoValue && trains_) {
      g_.value(to).storage = Storage::half;
      g_.value(to).name = g_.value(p).name;
    } else {
      g_.add_node(cast(v, to, reader));
    }
    return typed_[key] = to;
  }

  Graph& g_;
  const KernelChoice& how_;
  const bool trains_;
  std::vector<ValueId> parameter_;  // which a value is or views
  std::set<ValueId> exact_;         // read or written by ops that are never bf16
  std::map<std::tuple<ValueId, DType, bool>, ValueId> typed_;
};

}  // namespace

void lower_precision(Graph& graph, const KernelChoice& how) {
  if (how.activations == DType::bf16) Lowering(graph, how).run();
}

}  // namespace lockstep
