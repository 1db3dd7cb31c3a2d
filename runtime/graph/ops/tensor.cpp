// SPDX-License-Identifier: Apache-2.0
// Ops that move or draw data: image_augment, image_normalize, reorder, cast, dropout.
#include "kernels/dropout/dropout.h"
#include "kernels/image_augment/image_augment.h"
#include "kernels/image_normalize/image_normalize.h"
#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

std::vector<OutputRule> infer_image_augment(const Graph& g, const Params& params, In in) {
  const auto& p = params.as<ImageAugmentParams>();
  TensorSpec spec = spec_of(g, in[0]);
  const Shape& x = spec.shape;
  if (p.height > x[2] || p.width > x[3])
    shape_error(fmt::format("a window of {}x{} is larger than the images {}", p.height, p.width, x.text()));
  spec.shape = {x[0], x[1], p.height ? p.height : x[2], p.width ? p.width : x[3]};
  return {{spec}};
}

std::vector<OutputRule> infer_image_normalize(const Graph& g, const Params& params, In in) {
  const auto& p = params.as<ImageNormalizeParams>();
  const Shape& x = spec_of(g, in[0]).shape;
  if (static_cast<int64_t>(p.mean.size()) != x[1] || static_cast<int64_t>(p.std.size()) != x[1])
    shape_error(fmt::format("normalize has {} means and {} deviations, the images {} have {} channels",
                            p.mean.size(), p.std.size(), x.text(), x[1]));
  return {{plain_f32(x)}};
}

std::vector<OutputRule> infer_dropout(const Graph& g, const Params&, In in) {
  const Value& x = g.value(in[0]);
  return {{x.spec, x.batch, x.is_gradient}};
}

// The mask is a function of the step state, so the gradient draws it again.
std::vector<ValueId> gradient_dropout(GraphBuilder& b, const Node& n, In dy, const Wanted&) {
  return {b.add1("dropout", n.params, {dy[0], n.in[1]}), kNoValue};
}

std::vector<ValueId> gradient_reorder(GraphBuilder& b, const Node& n, In dy, const Wanted&) {
  return {b.reorder(dy[0], b.spec(n.in[0]).layout)};
}

}  // namespace

std::vector<OpDef> tensor_ops() {
  OpDef dropout{"dropout", infer_dropout, gradient_dropout};
  dropout.in_place = {{0, 0}};
  OpDef reorder{"reorder"};
  reorder.gradient = gradient_reorder;
  OpDef normalize{"image_normalize", infer_image_normalize}, cast{"cast"};
  normalize.bf16 = OpDef::Bf16::wants;
  cast.bf16 = OpDef::Bf16::never;  // added by the pass that decides
  return {{"image_augment", infer_image_augment}, normalize, dropout, reorder, cast};
}

}  // namespace lockstep
