// SPDX-License-Identifier: Apache-2.0
#include "kernels/linear/linear.h"

#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

std::vector<OutputRule> infer_linear(const Graph& g, const Params&, In in) {
  const TensorSpec& x = spec_of(g, in[0]);
  const Shape& w = spec_of(g, in[1]).shape;
  const int last = x.shape.rank() - 1;
  if (last != 1 && last != 2)
    shape_error(fmt::format(
        "linear needs features [N, K] or tokens [N, T, K], got {}: put a flatten before it", x.shape.text()));
  if (x.shape[last] != w[1])
    shape_error(fmt::format("linear: weight {} takes {} features, the input {} has {}", w.text(), w[1],
                            x.shape.text(), x.shape[last]));
  TensorSpec y = x;
  y.shape.set(last, w[0]);
  return {{y}};
}

std::vector<ValueId> gradient_linear(GraphBuilder& b, const Node& n, In dy, const Wanted& wanted) {
  LOCKSTEP_ASSERT(n.params.as<LinearParams>().activation == Activation::none, "differentiate before fusing");
  std::vector<ValueId> d(n.in.size(), kNoValue);
  const bool bias = n.in.size() > 2;
  if (wanted[1] || (bias && wanted[2])) {
    std::vector<OutputRule> out = {{b.spec(n.in[1]), false}};
    if (bias && wanted[2]) out.push_back({b.spec(n.in[2]), false});
    const auto dw = b.add_as("linear_weight_grad", n.params, {n.in[0], dy[0]}, out);
    if (wanted[1]) d[1] = dw[0];
    if (bias && wanted[2]) d[2] = dw[1];
  }
  if (wanted[0])
    d[0] = b.add_as("linear_input_grad", n.params, {dy[0], n.in[1]}, {gradient_like(b.graph(), n.in[0])})[0];
  return d;
}

int64_t flops_of_linear(const Graph& g, ValueId y, ValueId w) {
  return operations({2, elements_of(g, y), spec_of(g, w).shape[1]});
}

// Tokens and large matrices belong to the matrix product of the plain layout.
Layout preferred_linear(const Graph& g, const Node& n) {
  const TensorSpec& x = spec_of(g, n.in[0]);
  const bool large = spec_of(g, n.in[1]).shape.elements() > 256 * 1024;
  return x.shape.rank() == 3 || large ? Layout::plain : x.layout;
}

}  // namespace

std::vector<OpDef> linear_ops() {
  OpDef forward{"linear",
                infer_linear,
                gradient_linear,
                [](const Graph& g, const Node& n) { return flops_of_linear(g, n.out[0], n.in[1]); },
                {},
                preferred_linear};
  OpDef input{"linear_input_grad"}, weight{"linear_weight_grad"};
  input.flops = [](const Graph& g, const Node& n) { return flops_of_linear(g, n.in[0], n.in[1]); };
  weight.flops = [](const Graph& g, const Node& n) { return flops_of_linear(g, n.in[1], n.out[0]); };
  forward.bf16 = input.bf16 = weight.bf16 = OpDef::Bf16::wants;
  forward.bf16_in = input.bf16_in = {0, 1};  // with the weights
  return {forward, input, weight};
}

}  // namespace lockstep
