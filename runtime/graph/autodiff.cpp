// SPDX-License-Identifier: Apache-2.0
#include "runtime/graph/autodiff.h"

#include "kernels/elementwise/elementwise.h"
#include "runtime/graph/op.h"

namespace lockstep {

std::map<ValueId, ValueId> append_gradients(GraphBuilder& b, const std::map<ValueId, ValueId>& seeds,
                                            const std::vector<ValueId>& wanted) {
  Graph& g = b.graph();
  const size_t forward_nodes = g.nodes().size();

  // Values from which a wanted parameter can be reached backwards.
  std::vector<bool> needs(static_cast<size_t>(g.value_count()), false);
  for (ValueId p : wanted) needs[static_cast<size_t>(p)] = true;
  for (const Node& n : g.nodes())
    for (ValueId in : n.in)
      if (needs[static_cast<size_t>(in)])
        for (ValueId out : n.out) needs[static_cast<size_t>(out)] = true;

  std::vector<ValueId> gradient(static_cast<size_t>(g.value_count()), kNoValue);
  for (auto [value, d] : seeds) gradient[static_cast<size_t>(value)] = d;

  const std::string scope = b.scope();
  b.set_backward(true);
  for (size_t i = forward_nodes; i-- > 0;) {
    const Node n = g.nodes()[i];  // a copy: rules append to the vector
    std::vector<ValueId> dy;
    bool any = false;
    for (ValueId out : n.out) {
      dy.push_back(gradient[static_cast<size_t>(out)]);
      any |= dy.back() != kNoValue;
    }
    std::vector<bool> want;
    bool any_wanted = false;
    for (ValueId in : n.in) {
      want.push_back(needs[static_cast<size_t>(in)]);
      any_wanted |= want.back();
    }
    if (!any || !any_wanted) continue;
    b.set_scope(n.name);
    std::vector<ValueId> d;
    if (n.kind == NodeKind::view) {
      d = {b.view_as(dy[0], b.spec(n.in[0]))};
      g.value(d[0]).is_gradient = true;
    } else if (n.kind == NodeKind::compute) {
      const auto rule = op_def(n.op).gradient;
      LOCKSTEP_ASSERT(rule != nullptr, "{} has no gradient rule", n.op);
      d = rule(b, n, dy, want);
    } else {
      continue;  // collectives of statistics: their gradient is part of batch_norm_apply's
    }
    for (size_t k = 0; k < n.in.size(); ++k) {
      if (!want[k] || d[k] == kNoValue) continue;
      ValueId& sum = gradient[static_cast<size_t>(n.in[k])];
      sum = sum == kNoValue ? d[k] : b.elementwise(Elt::add, {sum, d[k]});
    }
  }
  b.set_backward(false);
  b.set_scope(scope);

  // Of what the model reads through a view, the gradient before it is viewed back: a value of its own, with
  // storage.
  const auto producer = g.producers();
  std::map<ValueId, ValueId> result;
  for (ValueId p : wanted) {
    ValueId d = gradient[static_cast<size_t>(p)];
    while (d != kNoValue && producer[static_cast<size_t>(d)] >= 0) {
      const Node& n = g.nodes()[static_cast<size_t>(producer[static_cast<size_t>(d)])];
      if (n.kind != NodeKind::view) break;
      d = n.in[0];
    }
    result[p] = d;
  }
  return result;
}

}  // namespace lockstep
