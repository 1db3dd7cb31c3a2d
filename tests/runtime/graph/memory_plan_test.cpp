// SPDX-License-Identifier: Apache-2.0
// The arena: lifetimes worked out here on their own, from the nodes' order alone.
#include <gtest/gtest.h>

#include <numeric>

#include "runtime/graph/op.h"
#include "tests/runtime/graph/nets.h"

namespace lockstep::testing {
namespace {

// Values that are one memory by definition: a view, an allreduce in place.
struct Group {
  int64_t offset = 0, bytes = 0;
  int birth = 0, death = 0;
  std::string text;
};

// How two groups may share memory at the node where one ends and the other begins.
bool in_place(const Graph& g, const std::vector<int>& group_of, int a, int b, int at) {
  const Node& n = g.nodes()[static_cast<size_t>(at)];
  if (n.kind != NodeKind::compute) return false;
  for (auto [in, out] : op_def(n.op).in_place)
    if (in < static_cast<int>(n.in.size()) && out < static_cast<int>(n.out.size()) &&
        group_of[static_cast<size_t>(n.in[static_cast<size_t>(in)])] == a &&
        group_of[static_cast<size_t>(n.out[static_cast<size_t>(out)])] == b)
      return true;
  return false;
}

void check_plan(const Plan& plan, int threads, const std::string& name) {
  const Graph& g = plan.graph;
  const auto values = static_cast<size_t>(g.value_count());
  std::vector<int> group_of(values);
  std::iota(group_of.begin(), group_of.end(), 0);
  for (const Node& n : g.nodes())  // in order, so an input's group is known
    if (n.kind == NodeKind::view || (n.kind == NodeKind::allreduce && !n.out.empty()))
      group_of[static_cast<size_t>(n.out[0])] = group_of[static_cast<size_t>(n.in[0])];
  std::map<int, Group> groups;
  for (size_t i = 0; i < g.nodes().size(); ++i)
    for (const auto* list : {&g.nodes()[i].out, &g.nodes()[i].in})
      for (ValueId v : *list) {
        const int id = group_of[static_cast<size_t>(v)];
        if (g.value(id).storage != Storage::arena) {
          EXPECT_LT(plan.offset[static_cast<size_t>(v)], 0) << "not in the arena";
          continue;
        }
        EXPECT_EQ(plan.offset[static_cast<size_t>(v)], plan.offset[static_cast<size_t>(id)]);
        auto [it, fresh] = groups.try_emplace(id);
        Group& group = it->second;
        if (fresh)
          group = {plan.offset[static_cast<size_t>(v)], g.value(id).spec.bytes(), static_cast<int>(i), 0,
                   fmt::format("{} value {}", name, id)};
        group.death = static_cast<int>(i);
      }
  ASSERT_GT(groups.size(), 5u);
  int64_t reused = 0, total = 0;
  for (const auto& [id, a] : groups) {
    total += a.bytes;
    EXPECT_EQ(a.offset % 64, 0) << a.text;
    EXPECT_GE(a.offset, 0) << a.text;
    EXPECT_LE(a.offset + a.bytes, plan.arena_bytes) << a.text;
    for (const auto& [other, b] : groups) {
      if (id == other || a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset) continue;
      ++reused;
      if (a.death < b.birth || b.death < a.birth) continue;
      const bool shared =
          (a.death == b.birth && a.offset == b.offset && in_place(g, group_of, id, other, a.death)) ||
          (b.death == a.birth && a.offset == b.offset && in_place(g, group_of, other, id, b.death));
      EXPECT_TRUE(shared) << a.text << " [" << a.birth << "," << a.death << "] and " << b.text << " ["
                          << b.birth << "," << b.death << "] lie on one another";
    }
  }
  EXPECT_GT(reused, 0) << "no memory is used twice";
  for (size_t i = 0; i < g.nodes().size(); ++i) {
    const Node& n = g.nodes()[i];
    if (n.kind != NodeKind::compute) continue;
    std::vector<TensorSpec> in, out;
    for (ValueId v : n.in) in.push_back(g.value(v).spec);
    for (ValueId v : n.out) out.push_back(g.value(v).spec);
    const auto kernel =
        Registry::builtin().find(n.op, n.kernel, Device::cpu)->make({n.params, in, out, threads});
    const int64_t bytes = kernel->workspace_bytes(), at = plan.workspace_offset[i];
    total += bytes;
    EXPECT_EQ(at % 64, 0);
    if (bytes == 0) continue;
    EXPECT_LE(at + bytes, plan.arena_bytes);
    for (const auto& [id, a] : groups) {
      if (static_cast<int>(i) < a.birth || static_cast<int>(i) > a.death) continue;
      EXPECT_TRUE(a.offset + a.bytes <= at || at + bytes <= a.offset)
          << a.text << " and the workspace of " << n.op;
    }
  }
  EXPECT_LT(plan.arena_bytes, total) << "values and workspaces side by side would not take more";
}

TEST(MemoryPlan, NothingAliveIsOverwritten) {
  for (const Net& net : nets())
    for (const bool laid_out : {false, true})
      for (const int64_t batch : {1, 17}) {
        Graph g = training_graph(net, batch, laid_out);
        KernelTable table;
        const KernelChoice how = Runner::how(2);
        const Plan plan = compile(std::move(g), table, how,
                                  [&](KernelTable& t, const Graph& f) { choose_first_kernels(t, f, how); });
        check_plan(plan, 2, net.name);
      }
}

TEST(MemoryPlan, ReluAfterPoolingWorksInPlace) {
  for (const bool read_later : {false, true}) {
    Graph g;
    GraphBuilder b(g);
    const Layers l{b, kNoValue};
    const ValueId x = b.input(kImages, {DType::u8, {4, kChannels, kSide, kSide}, Layout::plain}, true);
    const ValueId pooled =
        l.avg_pool(b.add1("image_normalize", ImageNormalizeParams{{0, 0, 0}, {1, 1, 1}}, {x}));
    const ValueId y = l.relu(pooled);
    ValueId z = l.avg_pool(y);
    g.value(z).storage = Storage::output;
    if (read_later) g.value(l.max_pool(pooled)).storage = Storage::output;
    KernelTable table;
    const Plan plan = compile(std::move(g), table, Runner::how(1), [&](KernelTable& t, const Graph& f) {
      choose_first_kernels(t, f, Runner::how(1));
    });
    const bool shared = plan.offset[static_cast<size_t>(y)] == plan.offset[static_cast<size_t>(pooled)];
    EXPECT_EQ(shared, !read_later);
    EXPECT_EQ(plan.root[static_cast<size_t>(y)], read_later ? y : pooled);
  }
}

}  // namespace
}  // namespace lockstep::testing
