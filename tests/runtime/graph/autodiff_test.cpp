// SPDX-License-Identifier: Apache-2.0
// Parameter gradients of small nets against central differences of the loss, through the executor: the
// passes, layouts, fused kernels and memory sharing of real training included.
#include <gtest/gtest.h>

#include "tests/runtime/graph/nets.h"

namespace lockstep::testing {
namespace {

class AutodiffTest : public ::testing::TestWithParam<int64_t> {};

TEST_P(AutodiffTest, GradientsAreCentralDifferences) {
  const int64_t batch = GetParam();
  for (const Net& net : nets()) {
    if (net.name == "wide_conv" && batch > 16) continue;  // slow, and plain layouts have no lanes to pad
    const Graph graph = training_graph(net, batch, true);
    Runner r(graph, graph, batch, false);
    r.run();
    std::mt19937 random(11);
    std::map<std::string, std::vector<float>> gradients;
    for (const auto& e : r.model.table.parameters) gradients[e.name] = r.gradient(e.name);
    for (const auto& e : r.model.table.parameters) {
      const std::vector<float>& gradient = gradients.at(e.name);
      const std::vector<float> start(r.model.parameter(e.name).begin(), r.model.parameter(e.name).end());
      const double size = norm(gradient);
      // Along the gradient itself (its length must be right) and along a random direction.
      for (const bool along : {true, false}) {
        std::vector<float> direction = gradient;
        if (!along)
          for (float& d : direction) d = std::normal_distribution<float>()(random);
        const double length = norm(direction);
        if (length == 0) continue;
        double expected = 0;
        for (size_t i = 0; i < direction.size(); ++i)
          expected += double{gradient[i]} * double{direction[i]} / length;
        auto loss_at = [&](double t) {
          for (size_t i = 0; i < start.size(); ++i)
            r.model.parameter(e.name)[i] = static_cast<float>(start[i] + t * double{direction[i]} / length);
          r.run();
          return r.loss();
        };
        const double h = net.smooth ? 1e-2 : 5e-4;
        const double found = (loss_at(h) - loss_at(-h)) / (2 * h);
        std::copy(start.begin(), start.end(), r.model.parameter(e.name).begin());
        // The loss, about 2, is rounded to float like all before it: about 4e-7 of noise, over 2h. Beside it
        // the third derivative: h^2, times 1 where slopes are small and more where they are large. Where
        // there are kinks, the samples that cross one within h.
        const double tolerance = 4e-7 / (2 * h) + h * h + (net.smooth ? 5e-4 : 2e-2) * size;
        EXPECT_NEAR(found, expected, tolerance)
            << net.name << " " << e.name << (along ? " along" : " across");
      }
    }
  }
}

// 3: padding lanes. 17: two blocks of lanes, one of them with a single sample.
INSTANTIATE_TEST_SUITE_P(Batches, AutodiffTest, ::testing::Values(3, 17));

TEST(Autodiff, NothingFlowsIntoWhatTheLossDoesNotReach) {
  Graph g;
  GraphBuilder b(g);
  const ValueId p = b.parameter("p", {4}, {}), q = b.parameter("q", {4}, {});
  const ValueId y = b.elementwise(Elt::tanh, {p});
  b.elementwise(Elt::tanh, {q});
  const ValueId dy = b.input("dy", {DType::f32, {4}, Layout::plain}, false);
  const auto d = append_gradients(b, {{y, dy}}, {p, q});
  EXPECT_NE(d.at(p), kNoValue);
  EXPECT_EQ(d.at(q), kNoValue);
}

TEST(Autodiff, AnEmbeddingsGradientIsThatOfItsTable) {
  Graph g;
  GraphBuilder b(g);
  const ValueId table = b.parameter("table", {7, 4}, {});
  const ValueId ids = b.input("ids", {DType::i32, {3}, Layout::plain}, true);
  const ValueId y = b.elementwise(Elt::tanh, {b.add1("embedding", NoParams{}, {table, ids})});
  EXPECT_EQ(b.spec(y).text(), "f32[3, 4]:plain");
  const ValueId dy = b.input("dy", b.spec(y), true);
  const ValueId d = append_gradients(b, {{y, dy}}, {table}).at(table);
  ASSERT_NE(d, kNoValue);
  EXPECT_TRUE(b.spec(d) == b.spec(table));
  EXPECT_FALSE(g.value(d).batch);
  const Node& n = g.nodes().back();
  EXPECT_EQ(n.op, "embedding_grad");
  EXPECT_EQ(n.in, (std::vector<ValueId>{ids, g.nodes()[2].out[0]}));
}

// A frozen part's gradients cost nothing: no node is made for what nobody wants.
TEST(Autodiff, UnwantedGradientsAreNotComputed) {
  for (const bool both : {true, false}) {
    Graph g;
    GraphBuilder b(g);
    const ValueId x = b.input("x", {DType::f32, {2, kChannels, kSide, kSide}, Layout::plain}, true);
    const Layers l{b, kNoValue};
    const ValueId y = l.conv("conv2", l.relu(l.conv("conv1", x, 4, 3)), 4, 3);
    const ValueId dy = b.input("dy", b.spec(y), true);
    std::vector<ValueId> wanted;
    for (ValueId v : g.values_in(Storage::parameter))
      if (both || g.value(v).name.starts_with("conv2")) wanted.push_back(v);
    append_gradients(b, {{y, dy}}, wanted);
    const auto count = [&](const std::string& op) {
      return std::count_if(g.nodes().begin(), g.nodes().end(), [&](const Node& n) { return n.op == op; });
    };
    EXPECT_EQ(count("conv2d_weight_grad"), both ? 2 : 1);
    EXPECT_EQ(count("conv2d_input_grad"), both ? 1 : 0);  // never of the image
  }
}

}  // namespace
}  // namespace lockstep::testing
