// SPDX-License-Identifier: Apache-2.0
// embedding, position_embedding and timestep_embedding: what a number, a place or a time is to a net.
#include "kernels/embedding/embedding.h"

#include "kernels/timestep_embedding/timestep_embedding.h"
#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

std::vector<OutputRule> infer_embedding(const Graph& g, const Params&, In in) {
  const TensorSpec &table = spec_of(g, in[0]), &ids = spec_of(g, in[1]);
  const int rank = ids.shape.rank();
  if (table.shape.rank() != 2 || (rank != 1 && rank != 2) || ids.dtype != DType::i32)
    shape_error(fmt::format("embedding needs a table [K, D] and i32 ids [N] or [N, T], got {} and {}",
                            table.shape.text(), ids.text()));
  Shape y = ids.shape;
  y.push_back(table.shape[1]);
  return {{{table.dtype, y, Layout::plain}, g.value(in[1]).batch}};
}

std::vector<ValueId> gradient_embedding(GraphBuilder& b, const Node& n, In dy, const Wanted&) {
  return {b.add_as("embedding_grad", n.params, {n.in[1], dy[0]}, {{b.spec(n.in[0]), false}})[0], kNoValue};
}

std::vector<OutputRule> infer_position(const Graph& g, const Params&, In in) {
  const TensorSpec& x = spec_of(g, in[0]);
  const Shape& table = spec_of(g, in[1]).shape;
  if (x.shape.rank() != 3 || table.rank() != 2 || table[0] < x.shape[1] || table[1] != x.shape[2])
    shape_error(fmt::format("position_embedding needs [N, T, D] and a table [T or more, D], got {} and {}",
                            x.shape.text(), table.text()));
  return {{x, g.value(in[0]).batch}};
}

std::vector<ValueId> gradient_position(GraphBuilder& b, const Node& n, In dy, const Wanted& wanted) {
  if (!wanted[1]) return {dy[0], kNoValue};
  return {dy[0], b.add_as("position_embedding_grad", n.params, {dy[0]}, {{b.spec(n.in[1]), false}})[0]};
}

Layout preferred_position(const Graph&, const Node&) { return Layout::plain; }

std::vector<OutputRule> infer_timesteps(const Graph& g, const Params& params, In in) {
  const auto& p = params.as<TimestepEmbeddingParams>();
  const TensorSpec& t = spec_of(g, in[0]);
  if (t.shape.rank() != 1 || (t.dtype != DType::i32 && t.dtype != DType::f32))
    shape_error(fmt::format("timestep_embedding needs i32 or f32 timesteps [N], got {}", t.text()));
  const int64_t half = p.dim / 2;
  if (half < 1 || static_cast<double>(half) <= p.freq_shift)
    shape_error(fmt::format("timestep_embedding: half of {} columns is not above the shift of {}", p.dim,
                            p.freq_shift));
  return {{plain_f32({t.shape[0], p.dim}), g.value(in[0]).batch}};
}

int64_t no_flops(const Graph&, const Node&) { return 0; }

}  // namespace

std::vector<OpDef> embedding_ops() {
  OpDef position{"position_embedding", infer_position, gradient_position};
  position.in_place = {{0, 0}}, position.preferred_layout = preferred_position;
  return {position,
          {"position_embedding_grad"},
          {"embedding", infer_embedding, gradient_embedding, no_flops},
          {"embedding_grad", nullptr, nullptr,
           [](const Graph& g, const Node& n) { return elements_of(g, n.in[1]); }},
          {"timestep_embedding", infer_timesteps}};
}

}  // namespace lockstep
