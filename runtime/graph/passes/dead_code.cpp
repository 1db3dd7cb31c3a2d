// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "runtime/graph/passes.h"

namespace lockstep {

void remove_dead_nodes(Graph& g) {
  auto& nodes = g.nodes();
  std::vector<bool> read(static_cast<size_t>(g.value_count()), false);
  std::vector<bool> keep(nodes.size(), false);
  for (size_t i = nodes.size(); i-- > 0;) {
    const Node& n = nodes[i];
    bool live = n.kind == NodeKind::allreduce || n.kind == NodeKind::all_gather;
    for (ValueId v : n.out) live |= read[static_cast<size_t>(v)] || g.value(v).storage != Storage::arena;
    keep[i] = live;
    if (live)
      for (ValueId v : n.in) read[static_cast<size_t>(v)] = true;
  }
  size_t kept = 0;
  for (size_t i = 0; i < nodes.size(); ++i)
    if (keep[i]) {
      if (kept != i) nodes[kept] = std::move(nodes[i]);
      ++kept;
    }
  nodes.resize(kept);
}

}  // namespace lockstep
