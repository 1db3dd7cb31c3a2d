// SPDX-License-Identifier: Apache-2.0
#include "runtime/graph/passes/fuse_parts.h"

#include <algorithm>

#include "kernels/batch_norm/batch_norm.h"
#include "kernels/group_norm/group_norm.h"

namespace lockstep {
namespace {

bool in_arena(const Graph& g, ValueId v) { return g.value(v).storage == Storage::arena; }

class BatchNormFusion {
 public:
  explicit BatchNormFusion(Graph& g) : g_(g), readers_(g.readers()) {}

  void run() {
    for (size_t i = 0; i < g_.nodes().size(); ++i) {
      const Node& n = g_.nodes()[i];
      const bool apply = n.op == "batch_norm_apply";
      if (!apply && n.op != "batch_norm_eval") continue;
      const bool fused =
          n.in.size() > (apply ? 4 : 5) || n.params.as<BatchNormParams>().activation != Activation::none;
      if (!fused) fuse(i);
    }
    drop_gone(g_);
  }

 private:
  Node& at(NodeId n) { return g_.nodes()[static_cast<size_t>(n)]; }
  const std::vector<NodeId>& readers(ValueId v) const { return readers_[static_cast<size_t>(v)]; }

  // The norm moves to where the last part stands, as r may be made after it.
  void fuse(size_t i) {
    const Node norm = g_.nodes()[i];
    auto params = norm.params.as<BatchNormParams>();
    const ValueId z = norm.out[0];
    std::vector<ValueId> in = norm.in;
    NodeId last = static_cast<NodeId>(i);
    if (const NodeId add = only_reader(z, Elt::add); add >= 0 && at(add).in[0] != at(add).in[1]) {
      in.push_back(at(add).in[at(add).in[0] == z ? 1 : 0]);
      last = add;
    }
    const bool added = last != static_cast<NodeId>(i);
    if (const NodeId relu = added ? only_reader(at(last).out[0], Elt::relu) : relu_after(norm); relu >= 0) {
      if (added) at(last).op = kGone;
      params.activation = Activation::relu;
      last = relu;
    }
    if (last == static_cast<NodeId>(i)) return;
    Node fused = norm;
    fused.in = std::move(in), fused.out = at(last).out, fused.params = params;
    g_.nodes()[i].op = kGone;
    at(last) = std::move(fused);
  }

  // The only reader of v, if it is that; else -1.
  NodeId only_reader(ValueId v, Elt op) {
    const auto& r = readers(v);
    return r.size() == 1 && in_arena(g_, v) && is_lone(at(r[0]), op) ? r[0] : -1;
  }

  // The relu that reads z alone, with its gradient put into the norm's own; -1 if that cannot be.
  NodeId relu_after(const Node& norm) {
    const NodeId relu = only_reader(norm.out[0], Elt::relu);
    if (relu < 0) return -1;
    const ValueId y = at(relu).out[0];
    Node *grad = nullptr, *sums = nullptr, *input = nullptr;
    for (NodeId r : readers(y))
      if (is_lone(at(r), Elt::relu_grad) && at(r).in[0] == y) grad = &at(r);
    if (!grad) return relu;
    const ValueId dz = grad->out[0];
    if (!in_arena(g_, dz)) return -1;
    for (NodeId r : readers(dz)) {
      Node& n = at(r);
      const bool of_this = n.in.size() > 2 && n.in[0] == norm.in[0] && n.in[1] == dz && n.in[2] == norm.in[1];
      if (of_this && n.op == "batch_norm_grad_sums")
        sums = &n;
      else if (of_this && n.op == "batch_norm_input_grad")
        input = &n;
      else
        return -1;
    }
    auto params = norm.params.as<BatchNormParams>();
    params.activation = Activation::relu;
    const ValueId gamma = norm.in[2], beta = norm.in[3];
    if (sums)
      sums->params = params, sums->in[1] = grad->in[1], sums->in.insert(sums->in.end(), {gamma, beta});
    if (input) input->params = params, input->in[1] = grad->in[1], input->in.push_back(beta);
    grad->op = kGone;
    return relu;
  }

  Graph& g_;
  std::vector<std::vector<NodeId>> readers_;
};

}  // namespace

bool is_lone(const Node& n, Elt op) {
  return n.op == "elementwise" && n.params.as<ElementwiseParams>().code.size() == 1 &&
         n.params.as<ElementwiseParams>().code[0].op == op;
}

void drop_gone(Graph& g) {
  auto& nodes = g.nodes();
  nodes.erase(std::remove_if(nodes.begin(), nodes.end(), [](const Node& n) { return n.op == kGone; }),
              nodes.end());
}

void fuse_group_norm_silu(Graph& g) {
  const auto readers = g.readers();
  auto& nodes = g.nodes();
  const auto at = [&](NodeId n) -> Node& { return nodes[static_cast<size_t>(n)]; };
  for (Node& norm : nodes) {
    if (norm.op != "group_norm" || norm.params.as<GroupNormParams>().activation != Activation::none) continue;
    const ValueId z = norm.out[0];
    Node *silu = nullptr, *silu_grad = nullptr;
    bool others = !in_arena(g, z);
    for (NodeId r : readers[static_cast<size_t>(z)]) {
      if (!silu && is_lone(at(r), Elt::silu))
        silu = &at(r);
      else if (!silu_grad && is_lone(at(r), Elt::silu_grad) && at(r).in[0] == z)
        silu_grad = &at(r);
      else
        others = true;
    }
    if (!silu || others) continue;
    auto params = norm.params.as<GroupNormParams>();
    params.activation = Activation::silu;
    if (silu_grad) {
      const ValueId dz = silu_grad->out[0];
      const auto& of_dz = readers[static_cast<size_t>(dz)];
      if (!in_arena(g, dz) || of_dz.size() != 1) continue;
      Node& norm_grad = at(of_dz[0]);
      if (norm_grad.op != "group_norm_grad" || norm_grad.in[1] != dz || norm_grad.in[4] != norm.out[1])
        continue;
      norm_grad.params = params;
      norm_grad.in[1] = silu_grad->in[1];
      silu_grad->op = kGone;
    }
    norm.params = params;
    norm.out[0] = silu->out[0];
    silu->op = kGone;
  }
  drop_gone(g);
}

void fuse_batch_norm_relu(Graph& g) { BatchNormFusion(g).run(); }

}  // namespace lockstep
