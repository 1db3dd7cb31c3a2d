// SPDX-License-Identifier: Apache-2.0
#include "kernels/loss/loss.h"

#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

std::vector<OutputRule> infer_log_softmax(const Graph& g, const Params&, In in) {
  const TensorSpec& x = spec_of(g, in[0]);
  if (x.shape.rank() != 2)
    shape_error(
        fmt::format("log_softmax needs [N, classes], got {}: put a flatten before it", x.shape.text()));
  return {{x}};
}

std::vector<ValueId> gradient_log_softmax(GraphBuilder& b, const Node& n, In dy, const Wanted&) {
  return {b.add_as("log_softmax_grad", n.params, {n.out[0], dy[0]}, {gradient_like(b.graph(), n.in[0])})[0]};
}

std::vector<OutputRule> infer_cross_entropy(const Graph& g, const Params&, In in) {
  const Shape& x = spec_of(g, in[0]).shape;
  if (x.rank() != 2)
    shape_error(fmt::format("the loss needs [N, classes], got {}: put a flatten before it", x.text()));
  return {{plain_f32({2}), false}};
}

}  // namespace

std::vector<OpDef> loss_ops() {
  // The loss's own gradient is emitted by the step graph (training/step_graph.cpp), which knows the step
  // state.
  std::vector<OpDef> ops = {{"log_softmax", infer_log_softmax, gradient_log_softmax},
                            {"log_softmax_grad"},
                            {"cross_entropy", infer_cross_entropy},
                            {"cross_entropy_grad"}};
  for (OpDef& op : ops) op.bf16 = OpDef::Bf16::never;
  return ops;
}

}  // namespace lockstep
