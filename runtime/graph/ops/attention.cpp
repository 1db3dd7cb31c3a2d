// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/attention.h"

#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

std::vector<OutputRule> infer_attention(const Graph& g, const Params& params, In in) {
  const auto& p = params.as<AttentionParams>();
  const int64_t heads = p.heads;
  LOCKSTEP_ASSERT(!p.causal || p.scale > 0, "{}", p.text());
  const TensorSpec& q = spec_of(g, in[0]);
  const Shape &k = spec_of(g, in[1]).shape, &v = spec_of(g, in[2]).shape;
  const int rank = q.shape.rank(), channels = rank == 3 ? 2 : 1;
  if ((rank != 3 && rank != 4) || k.rank() != rank || q.shape[0] != k[0] ||
      q.shape[channels] != k[channels] || !(k == v) || k.elements_from(1) == 0)
    shape_error(
        fmt::format("attention needs queries, keys and values, tokens [N, L, C] or images [N, C, H, W], "
                    "of equal N and C, got {}, {} and {}",
                    q.shape.text(), k.text(), v.text()));
  if (q.shape[channels] % heads != 0)
    shape_error(fmt::format("attention: {} heads don't divide the channels of {}", heads, q.shape.text()));
  const Layout lse = q.layout == Layout::lanes ? Layout::lanes : Layout::plain;
  return {{q}, {{DType::f32, {q.shape[0], heads, TokenSizes(q).tokens}, lse}}};
}

std::vector<ValueId> gradient_attention(GraphBuilder& b, const Node& n, In dy, const Wanted& wanted) {
  LOCKSTEP_ASSERT(dy[1] == kNoValue, "attention's lse has no gradient");
  std::vector<OutputRule> out;
  for (ValueId v : n.in) out.push_back(gradient_like(b.graph(), v));
  auto d = b.add_as("attention_grad", n.params, {n.in[0], n.in[1], n.in[2], n.out[0], n.out[1], dy[0]}, out);
  for (size_t i = 0; i < d.size(); ++i)
    if (!wanted[i]) d[i] = kNoValue;
  return d;
}

// So many products of queries and keys, in multiplications and additions; what a causal mask leaves out is
// counted.
int64_t product_flops(const Graph& g, const Node& n, int64_t products) {
  return operations({products, 2, elements_of(g, n.in[0]), TokenSizes(spec_of(g, n.in[1])).tokens});
}

Layout preferred_attention(const Graph& g, const Node& n) {
  return spec_of(g, n.in[0]).layout == Layout::nhwc ? Layout::nhwc : Layout::plain;
}

}  // namespace

std::vector<OpDef> attention_ops() {
  OpDef forward{"attention",
                infer_attention,
                gradient_attention,
                [](const Graph& g, const Node& n) { return product_flops(g, n, 2); },
                {},
                preferred_attention};
  OpDef backward{"attention_grad"};
  // Those of the definition; kernels that recompute scores do more.
  backward.flops = [](const Graph& g, const Node& n) { return product_flops(g, n, 5); };
  forward.bf16 = backward.bf16 = OpDef::Bf16::wants;
  forward.bf16_out = {0};  // lse stays f32
  backward.bf16_in = {0, 1, 2, 3, 5};
  return {forward, backward};
}

}  // namespace lockstep
