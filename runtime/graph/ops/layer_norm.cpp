// SPDX-License-Identifier: Apache-2.0
#include "kernels/layer_norm/layer_norm.h"

#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

std::vector<OutputRule> infer_layer_norm(const Graph& g, const Params&, In in) {
  const TensorSpec& x = spec_of(g, in[0]);
  const int last = x.shape.rank() - 1;
  for (ValueId v : in.subspan(1)) {
    const Shape& s = spec_of(g, v).shape;
    if (last < 1 || s.rank() != 1 || s[0] != x.shape[last])
      shape_error(fmt::format("layer_norm needs [N, ..., C] and weights [C], got {} and {}", x.shape.text(),
                              s.text()));
  }
  Shape stats = x.shape;
  stats.set(last, 2);
  return {{x}, {plain_f32(stats)}};
}

std::vector<ValueId> gradient_layer_norm(GraphBuilder& b, const Node& n, In dy, const Wanted& wanted) {
  const auto d =
      b.add_as("layer_norm_grad", n.params, {n.in[0], dy[0], n.in[1], n.out[1]},
               {gradient_like(b.graph(), n.in[0]), {b.spec(n.in[1]), false}, {b.spec(n.in[2]), false}});
  return {wanted[0] ? d[0] : kNoValue, wanted[1] ? d[1] : kNoValue, wanted[2] ? d[2] : kNoValue};
}

Layout preferred_layer_norm(const Graph&, const Node&) { return Layout::plain; }

}  // namespace

std::vector<OpDef> layer_norm_ops() {
  OpDef forward{"layer_norm", infer_layer_norm, gradient_layer_norm}, backward{"layer_norm_grad"};
  // Two sums, and a product and a sum for each number; the gradient about twice that.
  forward.flops = [](const Graph& g, const Node& n) { return operations({8, elements_of(g, n.in[0])}); };
  backward.flops = [](const Graph& g, const Node& n) { return operations({16, elements_of(g, n.in[0])}); };
  forward.preferred_layout = preferred_layer_norm;
  forward.in_place = {{0, 0}}, backward.in_place = {{1, 0}};
  forward.bf16_out = {0};  // statistics stay f32
  backward.bf16_in = {0, 1};
  return {forward, backward};
}

}  // namespace lockstep
