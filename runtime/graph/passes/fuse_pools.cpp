// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/pool2d/pool2d.h"
#include "runtime/graph/passes/fuse_parts.h"

namespace lockstep {
namespace {

class MaxPoolFusion {
 public:
  explicit MaxPoolFusion(Graph& g) : g_(g), readers_(g.readers()), producers_(g.producers()) {}

  void run() {
    for (Node& n : g_.nodes()) {
      if (n.op != "max_pool2d") continue;
      const auto& p = n.params.as<Pool2dParams>();
      if (p.relu() || p.kernel_h * p.kernel_w > Pool2dParams::kNoMaximum || readers(n.out[1]).size() > 1)
        continue;
      if (!fuse_after(n)) fuse_before(n);
    }
    drop_gone(g_);
  }

 private:
  Node& at(NodeId n) { return g_.nodes()[static_cast<size_t>(n)]; }
  const std::vector<NodeId>& readers(ValueId v) const { return readers_[static_cast<size_t>(v)]; }
  bool between(ValueId v) const { return g_.value(v).storage == Storage::arena; }

  // The only one of v's readers that may be: -1 where there is none, another's, or one more.
  NodeId only_reader(ValueId v) const {
    return between(v) && readers(v).size() == 1 ? readers(v)[0] : NodeId{-1};
  }
  // The node that takes y's gradient through relu; null where there is none.
  Node* relu_grad_of(ValueId y) {
    for (const NodeId r : readers(y))
      if (is_lone(at(r), Elt::relu_grad) && at(r).in[0] == y) return &at(r);
    return nullptr;
  }
  // The gradient of `pool`; null where there is none.
  Node* grad_of(const Node& pool) {
    return readers(pool.out[1]).empty() ? nullptr : &at(readers(pool.out[1])[0]);
  }
  static void set_relu(Node& pool) {
    auto p = pool.params.as<Pool2dParams>();
    p.activation = Activation::relu;
    pool.params = p;
  }

  // pool, relu; relu_grad, pool's gradient.
  bool fuse_after(Node& pool) {
    const NodeId relu = only_reader(pool.out[0]);
    if (relu < 0 || !is_lone(at(relu), Elt::relu)) return false;
    Node *through = relu_grad_of(at(relu).out[0]), *grad = grad_of(pool);
    if ((through == nullptr) != (grad == nullptr)) return false;
    if (grad) {
      const NodeId reader = only_reader(through->out[0]);
      if (reader < 0 || &at(reader) != grad || grad->in[0] != through->out[0]) return false;
      grad->in[0] = through->in[1], through->op = kGone;
      set_relu(*grad);
    }
    set_relu(pool);
    pool.out[0] = at(relu).out[0], at(relu).op = kGone;
    return true;
  }

  // relu, pool; pool's gradient, relu_grad.
  void fuse_before(Node& pool) {
    const ValueId y = pool.in[0];
    const NodeId relu = producers_[static_cast<size_t>(y)];
    if (relu < 0 || !is_lone(at(relu), Elt::relu) || !between(y)) return;
    Node *through = relu_grad_of(y), *grad = grad_of(pool);
    if ((through == nullptr) != (grad == nullptr) || readers(y).size() != (grad ? 2 : 1)) return;
    if (grad) {
      const NodeId reader = only_reader(grad->out[0]);
      if (reader < 0 || &at(reader) != through || through->in[1] != grad->out[0]) return;
      grad->out[0] = through->out[0], through->op = kGone;
      set_relu(*grad);
    }
    set_relu(pool);
    pool.in[0] = at(relu).in[0], at(relu).op = kGone;
  }

  Graph& g_;
  std::vector<std::vector<NodeId>> readers_;
  std::vector<NodeId> producers_;
};

}  // namespace

void fuse_max_pool_relu(Graph& g) { MaxPoolFusion(g).run(); }

}  // namespace lockstep
