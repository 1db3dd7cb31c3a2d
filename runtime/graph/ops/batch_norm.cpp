// SPDX-License-Identifier: Apache-2.0
#include "kernels/batch_norm/batch_norm.h"

#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

int64_t channels(const Graph& g, ValueId x) {
  const Shape& s = spec_of(g, x).shape;
  if (s.rank() != 4 && s.rank() != 2)
    shape_error(fmt::format("batch_norm needs [N, C, H, W] or [N, C], got {}", s.text()));
  return s[1];
}

std::vector<OutputRule> infer_stats(const Graph& g, const Params&, In in) {
  return {{plain_f32({3, channels(g, in[0])}), false}};
}
std::vector<OutputRule> infer_merge(const Graph& g, const Params&, In in) {
  return {{plain_f32({4, spec_of(g, in[0]).shape[2]}), false}};
}
std::vector<OutputRule> infer_like_input(const Graph& g, const Params&, In in) {
  channels(g, in[0]);
  return {{spec_of(g, in[0])}};
}

// The whole gradient, the way through the statistics included: so stats, merge and gather have none of their
// own.
std::vector<ValueId> gradient_apply(GraphBuilder& b, const Node& n, In dy, const Wanted& wanted) {
  const ValueId x = n.in[0], stats = n.in[1], gamma = n.in[2];
  std::vector<ValueId> d(4, kNoValue);
  const Shape c2{2, b.spec(gamma).shape[0]};
  const ValueId sums =
      b.add_as("batch_norm_grad_sums", n.params, {x, dy[0], stats}, {{plain_f32(c2), false}})[0];
  if (wanted[2] || wanted[3]) {
    const auto affine = b.add_as("batch_norm_affine_grad", n.params, {sums},
                                 {{b.spec(gamma), false}, {b.spec(gamma), false}});
    if (wanted[2]) d[2] = affine[0];
    if (wanted[3]) d[3] = affine[1];
  }
  if (wanted[0])
    d[0] = b.add_as("batch_norm_input_grad", n.params, {x, dy[0], stats, gamma, b.allreduce(sums)},
                    {gradient_like(b.graph(), x)})[0];
  return d;
}

std::vector<ValueId> no_gradient(GraphBuilder&, const Node& n, In, const Wanted&) {
  return std::vector<ValueId>(n.in.size(), kNoValue);
}

}  // namespace

std::vector<OpDef> batch_norm_ops() {
  OpDef apply{"batch_norm_apply", infer_like_input, gradient_apply};
  OpDef running{"batch_norm_running"};
  OpDef eval{"batch_norm_eval", infer_like_input};
  OpDef input_grad{"batch_norm_input_grad"};
  apply.in_place = eval.in_place = {{0, 0}};
  input_grad.in_place = {{1, 0}};
  return {{"batch_norm_stats", infer_stats, no_gradient},
          {"batch_norm_merge", infer_merge, no_gradient},
          running,
          apply,
          {"batch_norm_grad_sums"},
          {"batch_norm_affine_grad"},
          input_grad,
          eval};
}

}  // namespace lockstep
