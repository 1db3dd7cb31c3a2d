// SPDX-License-Identifier: Apache-2.0
#include "kernels/group_norm/group_norm.h"

#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

std::vector<OutputRule> infer_group_norm(const Graph& g, const Params& params, In in) {
  const auto groups = params.as<GroupNormParams>().groups;
  const TensorSpec& x = spec_of(g, in[0]);
  if (x.shape.rank() < 2 || x.shape[1] % groups != 0)
    shape_error(fmt::format("group_norm: {} groups don't divide the channels of {}", groups, x.shape.text()));
  const Layout stats = x.layout == Layout::lanes ? Layout::lanes : Layout::plain;
  return {{x}, {{DType::f32, {x.shape[0], 2 * groups}, stats}}};
}

std::vector<ValueId> gradient_group_norm(GraphBuilder& b, const Node& n, In dy, const Wanted& wanted) {
  const auto d =
      b.add_as("group_norm_grad", n.params, {n.in[0], dy[0], n.in[1], n.in[2], n.out[1]},
               {gradient_like(b.graph(), n.in[0]), {b.spec(n.in[1]), false}, {b.spec(n.in[2]), false}});
  return {wanted[0] ? d[0] : kNoValue, wanted[1] ? d[1] : kNoValue, wanted[2] ? d[2] : kNoValue};
}

}  // namespace

std::vector<OpDef> group_norm_ops() {
  OpDef forward{"group_norm", infer_group_norm, gradient_group_norm}, backward{"group_norm_grad"};
  forward.bf16_out = {0};  // statistics stay f32
  backward.bf16_in = {0, 1};
  return {forward, backward};
}

}  // namespace lockstep
