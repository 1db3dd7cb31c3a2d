// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <optional>

#include "kernels/conv2d/conv2d.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/linear/linear.h"
#include "runtime/graph/passes.h"
#include "runtime/graph/passes/fuse_parts.h"

namespace lockstep {
namespace {

std::optional<Activation> lone_activation(const Node& n) {
  if (n.op != "elementwise") return {};
  const auto& p = n.params.as<ElementwiseParams>();
  if (p.inputs != 1 || p.code.size() != 1) return {};
  switch (p.code[0].op) {
    case Elt::relu:
      return Activation::relu;
    case Elt::silu:
      return Activation::silu;
    case Elt::gelu:
      return Activation::gelu;
    case Elt::quick_gelu:
      return Activation::quick_gelu;
    case Elt::tanh:
      return Activation::tanh;
    case Elt::sigmoid:
      return Activation::sigmoid;
    default:
      return {};
  }
}

void fuse_activations(Graph& g) {
  const auto producer = g.producers();
  const auto readers = g.readers();
  for (Node& n : g.nodes()) {
    const auto activation = lone_activation(n);
    if (!activation) continue;
    const ValueId x = n.in[0];
    const NodeId p = producer[static_cast<size_t>(x)];
    // Where the backward pass reads the value before the activation (SiLU, GELU), it has a second reader.
    if (p < 0 || readers[static_cast<size_t>(x)].size() != 1 || g.value(x).storage != Storage::arena)
      continue;
    Node& source = g.nodes()[static_cast<size_t>(p)];
    if (source.op == "conv2d") {
      auto params = source.params.as<Conv2dParams>();
      if (params.activation != Activation::none) continue;
      params.activation = *activation;
      source.params = params;
    } else if (source.op == "linear") {
      auto params = source.params.as<LinearParams>();
      if (params.activation != Activation::none) continue;
      params.activation = *activation;
      source.params = params;
    } else {
      continue;
    }
    source.out[0] = n.out[0];
    n.op = kGone;
  }
  drop_gone(g);
}

// The two programs as one: a's instructions, then b's with a's results in place of loads. Inputs are numbered
// anew. kept: a's outputs that somebody else still reads.
std::optional<Node> join(const Node& a, const Node& b, const std::vector<bool>& keep_output) {
  const auto& pa = a.params.as<ElementwiseParams>();
  const auto& pb = b.params.as<ElementwiseParams>();
  Node n = b;
  ElementwiseParams p;
  n.in = a.in;
  for (ValueId v : b.in)
    if (std::find(a.out.begin(), a.out.end(), v) == a.out.end() &&
        std::find(n.in.begin(), n.in.end(), v) == n.in.end())
      n.in.push_back(v);
  p.inputs = static_cast<int>(n.in.size());
  auto in_register = [&](ValueId v) {
    return static_cast<int>(std::find(n.in.begin(), n.in.end(), v) - n.in.begin());
  };

  const int a_base = p.inputs;
  auto map_a = [&](int r) {
    return r < pa.inputs ? in_register(a.in[static_cast<size_t>(r)]) : r - pa.inputs + a_base;
  };
  for (auto i : pa.code) {
    i.a = map_a(i.a), i.b = map_a(i.b);
    p.code.push_back(i);
  }
  const int b_base = a_base + static_cast<int>(pa.code.size());
  auto map_b = [&](int r) {
    if (r >= pb.inputs) return r - pb.inputs + b_base;
    const ValueId v = b.in[static_cast<size_t>(r)];
    const auto it = std::find(a.out.begin(), a.out.end(), v);
    return it == a.out.end() ? in_register(v) : map_a(pa.outputs[static_cast<size_t>(it - a.out.begin())]);
  };
  for (auto i : pb.code) {
    i.a = map_b(i.a), i.b = map_b(i.b);
    p.code.push_back(i);
  }
  if (b_base + static_cast<int>(pb.code.size()) > ElementwiseParams::kMaxRegisters) return {};
  for (int o : pb.outputs) p.outputs.push_back(map_b(o));
  for (size_t o = 0; o < a.out.size(); ++o)
    if (keep_output[o]) {
      n.out.push_back(a.out[o]);
      p.outputs.push_back(map_a(pa.outputs[o]));
    }
  n.params = p;
  return n;
}

void fuse_chains(Graph& g) {
  for (bool changed = true; changed;) {
    changed = false;
    const auto readers = g.readers();
    const auto producer = g.producers();
    auto& nodes = g.nodes();
    for (size_t j = 0; j < nodes.size() && !changed; ++j) {
      if (nodes[j].op != "elementwise") continue;
      for (ValueId v : nodes[j].in) {
        const NodeId i = producer[static_cast<size_t>(v)];
        if (i < 0 || nodes[static_cast<size_t>(i)].op != "elementwise") continue;
        const Node& a = nodes[static_cast<size_t>(i)];
        // The joined node stands at j: every other reader of a's results must come later, none may write
        // outside the arena, and what a reads must still be there, which values written once always are.
        bool movable = true;
        std::vector<bool> keep_output;
        for (ValueId o : a.out) {
          const auto& r = readers[static_cast<size_t>(o)];
          movable &= g.value(o).storage == Storage::arena;
          bool others = false;
          for (NodeId reader : r) {
            movable &= reader >= static_cast<NodeId>(j);
            others |= reader > static_cast<NodeId>(j);
          }
          keep_output.push_back(others);
        }
        for (ValueId in : a.in) movable &= g.value(in).storage == Storage::arena;
        for (ValueId in : nodes[j].in) movable &= g.value(in).storage == Storage::arena;
        if (!movable) continue;
        auto joined = join(a, nodes[j], keep_output);
        if (!joined) continue;
        nodes[j] = std::move(*joined);
        nodes[static_cast<size_t>(i)].op = kGone;
        changed = true;
        break;
      }
    }
    drop_gone(g);
  }
}

}  // namespace

void fuse(Graph& g) {
  fuse_max_pool_relu(g);
  fuse_activations(g);
  fuse_group_norm_silu(g);
  fuse_batch_norm_relu(g);
  fuse_chains(g);
}

}  // namespace lockstep
