// SPDX-License-Identifier: Apache-2.0
#include "kernels/scale_shift/scale_shift.h"

#include "kernels/core/kernel.h"
#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

bool has_scale(size_t inputs) { return inputs == 3; }

std::vector<OutputRule> infer_scale_shift(const Graph& g, const Params&, In in) {
  LOCKSTEP_ASSERT(in.size() == 2 || in.size() == 3, "scale_shift of {} values", in.size());
  const TensorSpec& x = spec_of(g, in[0]);
  for (ValueId v : in.subspan(1)) {
    const Shape& s = spec_of(g, v).shape;
    if (x.shape.rank() < 2 || s.rank() != 2 || s[0] != x.shape[0] || s[1] != x.shape[1])
      shape_error(fmt::format("scale_shift needs [N, C, ...] and coefficients [N, C], got {} and {}",
                              x.shape.text(), s.text()));
  }
  return {{x}};
}

std::vector<ValueId> gradient_scale_shift(GraphBuilder& b, const Node& n, In dy, const Wanted& wanted) {
  const Graph& g = b.graph();
  const ValueId x = n.in[0], shift = n.in.back();
  if (!has_scale(n.in.size()))
    return {dy[0], wanted[1] ? b.add_as("scale_shift_grad", NoParams{}, {dy[0]}, {gradient_like(g, shift)})[0]
                             : kNoValue};
  const ValueId scale = n.in[1];
  const auto d = b.add_as("scale_shift_grad", NoParams{}, {dy[0], x, scale},
                          {gradient_like(g, shift), gradient_like(g, x), gradient_like(g, scale)});
  return {d[1], d[2], d[0]};
}

int64_t flops_scale_shift(const Graph& g, const Node& n) {
  return operations({elements_of(g, n.in[0]), has_scale(n.in.size()) ? 2 : 1});
}
int64_t gradient_flops_scale_shift(const Graph& g, const Node& n) {
  return operations({elements_of(g, n.in[0]), has_scale(n.in.size()) ? 4 : 1});
}

}  // namespace

std::vector<OpDef> scale_shift_ops() {
  return {{"scale_shift", infer_scale_shift, gradient_scale_shift, flops_scale_shift, {{0, 0}}},
          {"scale_shift_grad", nullptr, nullptr, gradient_flops_scale_shift, {{0, 1}}}};
}

}  // namespace lockstep
