// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise/elementwise.h"

#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

std::vector<OutputRule> infer_elementwise(const Graph& g, const Params& params, In in) {
  const auto& p = params.as<ElementwiseParams>();
  const Value& x = g.value(in[0]);
  for (ValueId v : in)
    if (!(spec_of(g, v).shape == x.spec.shape))
      shape_error(fmt::format("elementwise operands differ: {} and {}", x.spec.shape.text(),
                              spec_of(g, v).shape.text()));
  return std::vector<OutputRule>(p.outputs.size(), {x.spec, x.batch, x.is_gradient});
}

// Before fusion every program is one instruction.
std::vector<ValueId> gradient_elementwise(GraphBuilder& b, const Node& n, In dy, const Wanted& wanted) {
  const auto& p = n.params.as<ElementwiseParams>();
  LOCKSTEP_ASSERT(p.code.size() == 1, "differentiate before fusing");
  const ValueId d = dy[0], x = n.in[0], y = n.out[0];
  switch (p.code[0].op) {
    case Elt::copy:
    case Elt::add_imm:
      return {d};
    case Elt::relu:
      return {b.elementwise(Elt::relu_grad, {y, d})};
    case Elt::tanh:
      return {b.elementwise(Elt::tanh_grad, {y, d})};
    case Elt::sigmoid:
      return {b.elementwise(Elt::sigmoid_grad, {y, d})};
    case Elt::silu:
      return {b.elementwise(Elt::silu_grad, {x, d})};
    case Elt::gelu:
      return {b.elementwise(Elt::gelu_grad, {x, d})};
    case Elt::quick_gelu:
      return {b.elementwise(Elt::quick_gelu_grad, {x, d})};
    case Elt::scale:
      return {b.elementwise(Elt::scale, {d}, p.code[0].imm)};
    case Elt::add:
      return {d, d};
    case Elt::sub:
      return {d, wanted[1] ? b.elementwise(Elt::scale, {d}, -1.0f) : kNoValue};
    case Elt::mul:
      return {wanted[0] ? b.elementwise(Elt::mul, {d, n.in[1]}) : kNoValue,
              wanted[1] ? b.elementwise(Elt::mul, {d, n.in[0]}) : kNoValue};
    case Elt::relu_grad:
    case Elt::silu_grad:
    case Elt::gelu_grad:
    case Elt::quick_gelu_grad:
    case Elt::tanh_grad:
    case Elt::sigmoid_grad:
      break;
  }
  LOCKSTEP_ASSERT(false, "no second derivatives");
  return {};
}

int64_t flops_elementwise(const Graph& g, const Node& n) {
  return operations(
      {elements_of(g, n.out[0]), static_cast<int64_t>(n.params.as<ElementwiseParams>().code.size())});
}

}  // namespace

std::vector<OpDef> elementwise_ops() {
  OpDef op{"elementwise", infer_elementwise, gradient_elementwise, flops_elementwise};
  // Any output over any input: the executor's interpreter loads a tile of every input before it stores.
  for (int i = 0; i < 4; ++i) op.in_place.emplace_back(i, 0);
  return {op};
}

}  // namespace lockstep
