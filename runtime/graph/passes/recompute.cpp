// SPDX-License-Identifier: Apache-2.0
// Activation recomputation (Chen, Xu, Zhang, Guestrin: "Training deep nets with sublinear memory cost", arXiv
// 1604.06174).
#include <algorithm>
#include <map>
#include <set>

#include "runtime/graph/passes.h"

namespace lockstep {
namespace {

bool repeatable(const Node& n) {
  // A view shares its input's memory, so it is repeated with it. Collectives are not: their results stay.
  return !n.backward && (n.kind == NodeKind::compute || n.kind == NodeKind::view);
}

// Of one block: which of its values the backward pass reads although no other block's forward pass does.
std::set<ValueId> dropped_values(const Graph& g, const std::string& block,
                                 const std::vector<std::vector<NodeId>>& readers) {
  std::set<ValueId> dropped;
  for (const Node& n : g.nodes()) {
    if (!repeatable(n) || n.block != block) continue;
    for (ValueId v : n.out) {
      if (g.value(v).storage != Storage::arena) continue;
      bool backward = false, elsewhere = false;
      for (NodeId r : readers[static_cast<size_t>(v)]) {
        const Node& reader = g.nodes()[static_cast<size_t>(r)];
        backward |= reader.backward;
        elsewhere |= !reader.backward && reader.block != block;
      }
      if (backward && !elsewhere) dropped.insert(v);
    }
  }
  return dropped;
}

}  // namespace

std::vector<RecomputableBlock> recomputable_blocks(const Graph& g) {
  const auto readers = g.readers();
  std::vector<RecomputableBlock> blocks;
  std::set<std::string> seen;
  for (const Node& n : g.nodes()) {
    if (n.block.empty() || !seen.insert(n.block).second) continue;
    RecomputableBlock b{n.block, 0};
    for (ValueId v : dropped_values(g, n.block, readers)) b.bytes += g.value(v).spec.bytes();
    if (b.bytes > 0) blocks.push_back(std::move(b));
  }
  return blocks;
}

void recompute(Graph& g, const std::set<std::string>& blocks) {
  const auto readers = g.readers();
  const auto producer = g.producers();
  std::map<NodeId, std::vector<Node>> again;  // what runs right before a node
  std::map<ValueId, ValueId> copy;            // the value that the backward pass reads instead
  for (const std::string& block : blocks) {
    const std::set<ValueId> dropped = dropped_values(g, block, readers);
    if (dropped.empty()) continue;
    NodeId first = static_cast<NodeId>(g.nodes().size());
    for (ValueId v : dropped)
      for (NodeId r : readers[static_cast<size_t>(v)])
        if (g.nodes()[static_cast<size_t>(r)].backward) first = std::min(first, r);

    // The block's nodes that lead to them, from values that stay.
    std::set<NodeId> needed;
    std::vector<ValueId> open(dropped.begin(), dropped.end());
    while (!open.empty()) {
      const NodeId p = producer[static_cast<size_t>(open.back())];
      open.pop_back();
      if (!needed.insert(p).second) continue;
      for (ValueId in : g.nodes()[static_cast<size_t>(p)].in) {
        const NodeId from = producer[static_cast<size_t>(in)];
        if (from < 0) continue;
        const Node& n = g.nodes()[static_cast<size_t>(from)];
        if (!repeatable(n) || n.block != block || g.value(in).storage != Storage::arena) continue;
        const auto& r = readers[static_cast<size_t>(in)];
        const bool stays = !dropped.count(in) && std::any_of(r.begin(), r.end(), [&](NodeId reader) {
          const Node& at = g.nodes()[static_cast<size_t>(reader)];
          return !at.backward && at.block != block;
        });
        if (!stays) open.push_back(in);
      }
    }
    for (NodeId id : needed) {
      Node n = g.nodes()[static_cast<size_t>(id)];
      for (ValueId& in : n.in)
        if (const auto it = copy.find(in); it != copy.end()) in = it->second;
      for (ValueId& out : n.out) {
        const ValueId fresh = g.add_value(g.value(out));
        copy[out] = fresh;
        out = fresh;
      }
      n.backward = true;
      again[first].push_back(std::move(n));
    }
  }

  std::vector<Node> nodes;
  for (size_t i = 0; i < g.nodes().size(); ++i) {
    if (const auto it = again.find(static_cast<NodeId>(i)); it != again.end())
      for (Node& n : it->second) nodes.push_back(std::move(n));
    Node n = std::move(g.nodes()[i]);
    if (n.backward)
      for (ValueId& in : n.in)
        if (const auto it = copy.find(in); it != copy.end()) in = it->second;
    nodes.push_back(std::move(n));
  }
  g.nodes() = std::move(nodes);
}

}  // namespace lockstep
