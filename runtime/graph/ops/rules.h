// SPDX-License-Identifier: Apache-2.0
// Shorthands for shape and gradient rules, and the list of op families.
#pragma once

#include "runtime/graph/op.h"

namespace lockstep {

using Wanted = std::vector<bool>;
using In = std::span<const ValueId>;

inline const TensorSpec& spec_of(const Graph& g, ValueId v) { return g.value(v).spec; }
// dx: like the value it is the gradient of.
inline OutputRule gradient_like(const Graph& g, ValueId v) {
  const Value& x = g.value(v);
  return {x.spec, x.batch, x.batch};
}
inline TensorSpec plain_f32(Shape s) { return {DType::f32, s, Layout::plain}; }
[[noreturn]] inline void shape_error(std::string message) {
  throw Error(Exit::config, "E_SHAPE", std::move(message));
}
// What a node computes, as a product.
inline int64_t operations(std::initializer_list<int64_t> factors) {
  return checked_product("the number of operations", factors);
}
inline int64_t elements_of(const Graph& g, ValueId v) { return spec_of(g, v).shape.elements(); }

// One function a file in this folder.
std::vector<OpDef> attention_ops();
std::vector<OpDef> batch_norm_ops();
std::vector<OpDef> concat_ops();
std::vector<OpDef> conv2d_ops();
std::vector<OpDef> diffusion_ops();
std::vector<OpDef> elementwise_ops();
std::vector<OpDef> embedding_ops();
std::vector<OpDef> geglu_ops();
std::vector<OpDef> group_norm_ops();
std::vector<OpDef> layer_norm_ops();
std::vector<OpDef> linear_ops();
std::vector<OpDef> loss_ops();
std::vector<OpDef> optimizer_ops();
std::vector<OpDef> pool2d_ops();
std::vector<OpDef> resample_ops();
std::vector<OpDef> scale_shift_ops();
std::vector<OpDef> tensor_ops();

}  // namespace lockstep
