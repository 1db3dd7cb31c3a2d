// SPDX-License-Identifier: Apache-2.0
#include "kernels/geglu/geglu.h"

#include "kernels/core/kernel.h"
#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

std::vector<OutputRule> infer_geglu(const Graph& g, const Params&, In in) {
  TensorSpec y = spec_of(g, in[0]);
  const int last = y.shape.rank() - 1;
  if (last < 1 || y.shape[last] % 2 != 0)
    shape_error(fmt::format("geglu needs [N, ..., 2 C], values and gates, got {}", y.shape.text()));
  y.shape.set(last, y.shape[last] / 2);
  return {{y}};
}

std::vector<ValueId> gradient_geglu(GraphBuilder& b, const Node& n, In dy, const Wanted&) {
  return b.add_as("geglu_grad", n.params, {n.in[0], dy[0]}, {gradient_like(b.graph(), n.in[0])});
}

Layout preferred_geglu(const Graph&, const Node&) { return Layout::plain; }

}  // namespace

std::vector<OpDef> geglu_ops() {
  OpDef forward{"geglu", infer_geglu, gradient_geglu}, backward{"geglu_grad"};
  // As an activation counts, one for each number and one for the product.
  forward.flops = [](const Graph& g, const Node& n) { return operations({2, elements_of(g, n.out[0])}); };
  backward.flops = [](const Graph& g, const Node& n) { return operations({5, elements_of(g, n.in[1])}); };
  forward.preferred_layout = preferred_geglu;
  return {forward, backward};
}

}  // namespace lockstep
