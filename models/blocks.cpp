// SPDX-License-Identifier: Apache-2.0
#include "models/blocks.h"

#include <cmath>

#include "kernels/attention/attention.h"
#include "kernels/core/kernel.h"
#include "kernels/dropout/dropout.h"
#include "kernels/group_norm/group_norm.h"
#include "kernels/layer_norm/layer_norm.h"
#include "kernels/linear/linear.h"

namespace lockstep {

using std::string;

Init uniform_init(int64_t fan_in) {
  Init i;
  i.kind = Init::Kind::uniform;
  i.bound = static_cast<float>(1 / std::sqrt(static_cast<double>(fan_in)));
  return i;
}

Init normal_init(double deviation) {
  Init i;
  i.kind = Init::Kind::normal;
  i.deviation = static_cast<float>(deviation);
  return i;
}

Init constant_init(float value) {
  Init i;
  i.constant = value;
  return i;
}

ValueId conv2d(GraphBuilder& b, ValueId x, const string& name, const Shape& weight, const Conv2dParams& p,
               bool bias, std::optional<Init> weight_init) {
  b.set_scope(name);
  const Init init = uniform_init(weight.elements_from(1));
  std::vector<ValueId> in = {x, b.parameter(name + ".weight", weight, weight_init.value_or(init))};
  if (bias) in.push_back(b.parameter(name + ".bias", {weight[0]}, init));
  return b.add1("conv2d", p, in);
}

ValueId conv2d(GraphBuilder& b, ValueId x, const string& name, int64_t out, int64_t kernel) {
  Conv2dParams p;
  p.pad_top = p.pad_bottom = p.pad_left = p.pad_right = kernel / 2;
  return conv2d(b, x, name, {out, b.spec(x).shape[1], kernel, kernel}, p);
}

namespace {

int64_t features(GraphBuilder& b, ValueId x) {
  const Shape& in = b.spec(x).shape;
  return in[in.rank() - 1];
}

ValueId add_linear(GraphBuilder& b, ValueId x, const string& name, int64_t out, const Init& weight,
                   const Init* bias) {
  b.set_scope(name);
  std::vector<ValueId> in = {x, b.parameter(name + ".weight", {out, features(b, x)}, weight)};
  if (bias) in.push_back(b.parameter(name + ".bias", {out}, *bias));
  return b.add1("linear", LinearParams{}, in);
}

}  // namespace

ValueId linear(GraphBuilder& b, ValueId x, const string& name, int64_t out, bool bias) {
  const Init init = uniform_init(features(b, x));
  return add_linear(b, x, name, out, init, bias ? &init : nullptr);
}

ValueId linear(GraphBuilder& b, ValueId x, const string& name, int64_t out, const Init& weight,
               const Init& bias) {
  return add_linear(b, x, name, out, weight, &bias);
}

ValueId project_pixels(GraphBuilder& b, ValueId x, const string& name, Pointwise weight) {
  const int64_t c = b.spec(x).shape[1];
  if (weight == Pointwise::conv2d) return conv2d(b, x, name, c, 1);
  b.set_scope(name);
  const ValueId w = b.parameter(name + ".weight", {c, c}, uniform_init(c));
  const ValueId bias = b.parameter(name + ".bias", {c}, uniform_init(c));
  return b.add1("conv2d", Conv2dParams{}, {x, b.view(w, {c, c, 1, 1}), bias});
}

ValueId group_norm(GraphBuilder& b, ValueId x, const string& name, int64_t groups, double eps) {
  b.set_scope(name);
  const Shape& in = b.spec(x).shape;
  if (in.rank() < 2 || in[1] % groups)
    throw Error(Exit::config, "E_SHAPE",
                fmt::format("{}: {} groups do not divide the channels of {}", name, groups, in.text()));
  const int64_t channels = in[1];
  GroupNormParams p;
  p.groups = groups, p.eps = static_cast<float>(eps);
  const ValueId gamma = b.parameter(name + ".weight", {channels}, constant_init(1));
  const ValueId beta = b.parameter(name + ".bias", {channels}, constant_init(0));
  return b.add("group_norm", p, {x, gamma, beta})[0];
}

ValueId layer_norm(GraphBuilder& b, ValueId x, const string& name, double eps) {
  b.set_scope(name);
  const int64_t c = features(b, x);
  LayerNormParams p;
  p.eps = static_cast<float>(eps);
  const ValueId gamma = b.parameter(name + ".weight", {c}, constant_init(1));
  const ValueId beta = b.parameter(name + ".bias", {c}, constant_init(0));
  return b.add("layer_norm", p, {x, gamma, beta})[0];
}

Elt activation_of(std::string_view name) {
  if (name == "relu") return Elt::relu;
  if (name == "silu" || name == "swish") return Elt::silu;
  if (name == "gelu") return Elt::gelu;
  if (name == "quick_gelu") return Elt::quick_gelu;
  if (name == "tanh") return Elt::tanh;
  LOCKSTEP_ASSERT(name == "sigmoid", "no activation {}", name);
  return Elt::sigmoid;
}

ValueId activate(GraphBuilder& b, ValueId x, Elt elt) { return b.elementwise(elt, {x}); }

ValueId dropout(ModelContext& c, ValueId x, double p, bool channelwise) {
  if (!c.training || p == 0) return x;
  DropoutParams params;
  params.p = static_cast<float>(p);
  params.channelwise = channelwise;
  params.layer = c.dropouts++;
  return c.builder.add1("dropout", params, {x, c.step_state});
}

ValueId attention(GraphBuilder& b, ValueId q, ValueId k, ValueId v, int64_t heads, bool causal) {
  const Shape& in = b.spec(q).shape;
  const int64_t width = in[in.rank() == 3 ? 2 : 1] / heads;
  AttentionParams p;
  p.heads = heads;
  p.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(width)));
  p.causal = causal;
  return b.add("attention", p, {q, k, v})[0];
}

ValueId self_attention2d(GraphBuilder& b, ValueId x, const string& name, int64_t heads, int64_t groups,
                         double eps) {
  const Shape& in = b.spec(x).shape;
  if (in[1] % heads)
    throw Error(Exit::config, "E_SHAPE",
                fmt::format("{}: {} heads do not divide the channels of {}", name, heads, in.text()));
  const ValueId normed = groups ? group_norm(b, x, name + ".group_norm", groups, eps) : x;
  const auto project = [&](ValueId from, const char* part) {
    return project_pixels(b, from, name + part, Pointwise::linear);
  };
  const ValueId q = project(normed, ".to_q"), k = project(normed, ".to_k"), v = project(normed, ".to_v");
  b.set_scope(name);
  const ValueId out = project(attention(b, q, k, v, heads), ".to_out.0");
  b.set_scope(name);
  return b.elementwise(Elt::add, {out, x});
}

}  // namespace lockstep
