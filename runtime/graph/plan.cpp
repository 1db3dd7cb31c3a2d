// SPDX-License-Identifier: Apache-2.0
#include "runtime/graph/plan.h"

#include <algorithm>
#include <numeric>

#include "kernels/core/kernel.h"
#include "runtime/graph/op.h"
#include "runtime/graph/passes.h"

namespace lockstep {
namespace {

constexpr int64_t kArenaAlign = 64;
int64_t arena_aligned(int64_t bytes) { return (bytes + kArenaAlign - 1) / kArenaAlign * kArenaAlign; }

// Little work is done sooner by one thread than others wake up, and leaves the cores to what else there is to do: a
// server's connections. Where bits may depend on the threads they are what was asked for.
int threads_for(const Graph& g, const KernelChoice& how) {
  constexpr int64_t kFlops = 32'000'000;  // some 0.3 ms of a core; waking a thread takes up to 0.1 ms
  const bool little = how.device == Device::cpu && how.independent && flops_of(g) < kFlops;
  return little ? 1 : how.threads;
}

int64_t workspace_bytes(const Graph& g, const Node& n, const KernelChoice& how, int threads) {
  std::vector<TensorSpec> in, out;
  for (ValueId v : n.in) in.push_back(g.value(v).spec);
  for (ValueId v : n.out) out.push_back(g.value(v).spec);
  const KernelRequest request{n.params, in, out, threads};
  const KernelInfo* info = Registry::builtin().find(n.op, n.kernel, how.device, kernel_dtype(request));
  auto kernel = info ? info->make(request) : nullptr;
  if (!kernel)
    throw Error(
        Exit::config, "E_KERNEL_DECLINES",
        fmt::format("kernel \"{}\" of {} does not take {} here", n.kernel, n.op, kernel_signature(g, n)))
        .hint("remove the kernel cache, or resume with --retune");
  return kernel->workspace_bytes();
}

struct Block {
  int64_t bytes = 0;
  int first = 0, last = 0;  // node indices, inclusive
  int64_t* offset = nullptr;
};

// Largest first, each at the lowest offset that is free during its whole life. Returns the height.
int64_t place(std::vector<Block>& blocks) {
  std::sort(blocks.begin(), blocks.end(), [](const Block& a, const Block& b) {
    return a.bytes != b.bytes ? a.bytes > b.bytes : a.first < b.first;
  });
  int64_t height = 0;
  std::vector<const Block*> placed;  // by offset
  for (Block& b : blocks) {
    int64_t at = 0;
    for (const Block* p : placed) {
      if (p->last < b.first || p->first > b.last) continue;
      if (*p->offset - at >= b.bytes) break;
      at = std::max(at, *p->offset + p->bytes);
    }
    *b.offset = at;
    height = std::max(height, checked_sum("the bytes of a step", {at, b.bytes}));
    placed.insert(std::upper_bound(placed.begin(), placed.end(), at,
                                   [](int64_t o, const Block* p) { return o < *p->offset; }),
                  &b);
  }
  return height;
}

void plan_memory(Plan& plan, const KernelChoice& how) {
  const Graph& g = plan.graph;
  const auto& nodes = g.nodes();
  const auto values = static_cast<size_t>(g.value_count());
  plan.root.resize(values);
  std::iota(plan.root.begin(), plan.root.end(), 0);
  plan.offset.assign(values, -1);
  plan.workspace_offset.assign(nodes.size(), 0);

  // Aliases: a view and an in-place collective are their input's memory.
  auto root = [&](ValueId v) {
    while (plan.root[static_cast<size_t>(v)] != v) v = plan.root[static_cast<size_t>(v)];
    return v;
  };
  for (const Node& n : nodes)
    if (n.kind == NodeKind::view || (n.kind == NodeKind::allreduce && !n.out.empty()))
      plan.root[static_cast<size_t>(n.out[0])] = root(n.in[0]);

  std::vector<int> first(values, -1), last(values, -1);
  for (size_t i = 0; i < nodes.size(); ++i) {
    const int at = static_cast<int>(i);
    for (const auto& list : {nodes[i].out, nodes[i].in})
      for (ValueId v : list) {
        const auto r = static_cast<size_t>(root(v));
        if (first[r] < 0) first[r] = at;
        last[r] = at;
      }
  }
  // In place: an output takes the memory of an input that dies here.
  for (size_t i = 0; i < nodes.size(); ++i) {
    const Node& n = nodes[i];
    if (n.kind != NodeKind::compute) continue;
    std::vector<ValueId> taken;
    for (auto [in, out] : op_def(n.op).in_place) {
      if (in >= static_cast<int>(n.in.size()) || out >= static_cast<int>(n.out.size())) continue;
      const ValueId x = root(n.in[static_cast<size_t>(in)]), y = n.out[static_cast<size_t>(out)];
      if (root(y) != y || g.value(x).storage != Storage::arena || g.value(y).storage != Storage::arena)
        continue;
      if (last[static_cast<size_t>(x)] != static_cast<int>(i)) continue;
      if (g.value(x).spec.bytes() != g.value(y).spec.bytes() || x == y) continue;
      if (std::find(taken.begin(), taken.end(), x) != taken.end()) continue;
      taken.push_back(x);
      plan.root[static_cast<size_t>(y)] = x;
      last[static_cast<size_t>(x)] = std::max(last[static_cast<size_t>(x)], last[static_cast<size_t>(y)]);
    }
  }

  std::vector<Block> blocks;
  for (size_t v = 0; v < values; ++v) {
    if (root(static_cast<ValueId>(v)) != static_cast<ValueId>(v) || first[v] < 0) continue;
    if (g.value(static_cast<ValueId>(v)).storage != Storage::arena) continue;
    blocks.push_back(
        {arena_aligned(g.value(static_cast<ValueId>(v)).spec.bytes()), first[v], last[v], &plan.offset[v]});
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].kind != NodeKind::compute) continue;
    const int64_t bytes = workspace_bytes(g, nodes[i], how, plan.threads);
    if (bytes > 0)
      blocks.push_back(
          {arena_aligned(bytes), static_cast<int>(i), static_cast<int>(i), &plan.workspace_offset[i]});
  }
  plan.arena_bytes = place(blocks);
  for (size_t v = 0; v < values; ++v) {
    plan.root[v] = root(static_cast<ValueId>(v));
    plan.offset[v] = plan.offset[static_cast<size_t>(plan.root[v])];
  }
}

}  // namespace

Plan compile(Graph graph, KernelTable& table, const KernelChoice& how,
             const std::function<void(KernelTable&, const Graph&)>& choose,
             const Recompute& how_to_recompute) {
  remove_dead_nodes(graph);
  fuse(graph);
  lower_precision(graph, how);
  choose(table, graph);
  for (Node& n : graph.nodes())
    if (n.kind == NodeKind::compute) n.kernel = table.at(kernel_signature(graph, n));

  // The largest `count` blocks recomputed.
  auto blocks = how_to_recompute.mode == Recompute::Mode::none ? std::vector<RecomputableBlock>()
                                                               : recomputable_blocks(graph);
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const auto& x, const auto& y) { return x.bytes > y.bytes; });
  auto plan_with = [&](size_t count) {
    Plan plan;
    plan.graph = graph;
    std::set<std::string> names;
    for (size_t i = 0; i < count; ++i) names.insert(blocks[i].name);
    recompute(plan.graph, names);
    plan.threads = threads_for(plan.graph, how);
    plan_memory(plan, how);
    return plan;
  };
  if (how_to_recompute.mode != Recompute::Mode::automatic) return plan_with(blocks.size());
  const int64_t allowed = how_to_recompute.arena_bytes;
  Plan plan = plan_with(0);
  if (plan.arena_bytes <= allowed) return plan;
  size_t too_few = 0, enough = blocks.size();
  plan = plan_with(enough);
  if (plan.arena_bytes > allowed)
    throw Error(
        Exit::config, "E_MEMORY_BUDGET",
        fmt::format("activations need {} bytes even when all blocks are recomputed, the budget leaves {}",
                    plan.arena_bytes, std::max<int64_t>(allowed, 0)))
        .hint("a smaller global_batch_size or gradient_accumulation needs less");
  while (enough - too_few > 1) {
    const size_t middle = (too_few + enough) / 2;
    Plan candidate = plan_with(middle);
    const bool fits = candidate.arena_bytes <= allowed;
    (fits ? enough : too_few) = middle;
    if (fits) plan = std::move(candidate);
  }
  return plan;
}

int64_t flops_of(const Graph& g, const Node& n) {
  if (n.kind != NodeKind::compute) return 0;
  try {
    if (auto rule = op_def(n.op).flops) return rule(g, n);
  } catch (Error& e) {
    e.add_place("layer", n.name);
    e.add_place("op", n.op);
    throw;
  }
  int64_t most = 0;
  for (const auto& list : {n.in, n.out})
    for (ValueId v : list) most = std::max(most, g.value(v).spec.shape.elements());
  return most;
}

int64_t flops_of(const Graph& g) {
  int64_t total = 0;
  for (const Node& n : g.nodes()) total = checked_sum("the number of operations", {total, flops_of(g, n)});
  return total;
}

int64_t collective_bytes(const Graph& g, const Node& n, DType gradients) {
  if (n.params.empty()) return g.value(n.in[0]).spec.bytes();
  const auto& bucket = n.params.as<BucketParams>();
  const int64_t metrics = bucket.metrics();
  return metrics * size_of(DType::f32) + (bucket.end - bucket.begin - metrics) * size_of(gradients);
}

bool reads_summed_gradients(const Graph& g, const Node& n) {
  return std::any_of(n.in.begin(), n.in.end(), [&](ValueId id) {
    const Value& v = g.value(id);
    return v.storage == Storage::gradient && (v.name == kWholeArray || v.name == kDiverged);
  });
}

std::string Plan::collective_schedule() const {
  std::string s;
  for (const Node& n : graph.nodes()) {
    if (n.kind != NodeKind::allreduce && n.kind != NodeKind::all_gather) continue;
    s += n.op + " " + (n.params.empty() ? graph.value(n.in[0]).spec.text() : n.params.text()) + "\n";
  }
  return s;
}

nlohmann::json to_json(const Plan& plan) {
  using nlohmann::json;
  const Graph& g = plan.graph;
  json nodes = json::array();
  for (size_t i = 0; i < g.nodes().size(); ++i) {
    const Node& n = g.nodes()[i];
    auto list = [&](const std::vector<ValueId>& values) {
      json a = json::array();
      for (ValueId v : values) {
        json j = {{"value", v}, {"tensor", g.value(v).spec.text()}, {"bytes", g.value(v).spec.bytes()}};
        if (!g.value(v).name.empty()) j["name"] = g.value(v).name;
        if (plan.offset[static_cast<size_t>(v)] >= 0) j["offset"] = plan.offset[static_cast<size_t>(v)];
        a.push_back(j);
      }
      return a;
    };
    json j = {{"op", n.op},
              {"layer", n.name},
              {"pass", n.backward ? "backward" : "forward"},
              {"params", n.params.text()},
              {"in", list(n.in)},
              {"out", list(n.out)},
              {"flops", flops_of(g, n)}};
    if (n.kind == NodeKind::compute) j["kernel"] = n.kernel;
    nodes.push_back(std::move(j));
  }
  return {{"nodes", nodes}, {"flops", flops_of(g)}, {"arena_bytes", plan.arena_bytes}};
}

std::string to_dot(const Plan& plan) {
  const Graph& g = plan.graph;
  std::string s = "digraph plan {\n  rankdir=TB; node [shape=box, fontname=\"Helvetica\", fontsize=10];\n";
  const auto producer = g.producers();
  for (size_t i = 0; i < g.nodes().size(); ++i) {
    const Node& n = g.nodes()[i];
    s += fmt::format("  n{} [label=\"{}\\n{}{}{}\"{}];\n", i, n.op, n.name, n.kernel.empty() ? "" : "\\n",
                     n.kernel,
                     n.kind == NodeKind::compute ? (n.backward ? ", style=filled, fillcolor=\"#fff0e0\"" : "")
                                                 : ", style=filled, fillcolor=\"#e0e8ff\"");
    for (ValueId v : n.in)
      if (const NodeId p = producer[static_cast<size_t>(v)]; p >= 0)
        s += fmt::format("  n{} -> n{} [label=\"{}\", fontsize=8];\n", p, i, g.value(v).spec.shape.text());
  }
  return s + "}\n";
}

}  // namespace lockstep
