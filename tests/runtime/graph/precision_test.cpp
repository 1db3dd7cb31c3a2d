// SPDX-License-Identifier: Apache-2.0
// lower_precision(): which values become bf16, what it does to losses and gradients.
#include <gtest/gtest.h>

#include "tests/runtime/graph/nets.h"

namespace lockstep::testing {
namespace {

KernelChoice bf16_on(Device device) {
  KernelChoice how{device, 1, "test", ""};
  how.activations = DType::bf16;
  return how;
}

int64_t count_ops(const Graph& g, const std::string& op) {
  return std::count_if(g.nodes().begin(), g.nodes().end(), [&](const Node& n) { return n.op == op; });
}

TEST(Precision, LossesAndGradientsStayNear) {
  for (const Net& net : nets())
    for (Device device : {Device::cpu, Device::simt}) {
      constexpr int64_t kBatch = 19;
      SCOPED_TRACE(net.name + " on " + name(device));
      const Graph plain = training_graph(net, kBatch, false);
      Graph apart = plain;
      keep_apart(apart);
      Runner expected(plain, apart, kBatch, true), lowered(plain, plain, kBatch, bf16_on(device));
      expected.run();
      lowered.run();
      // Some ten roundings to 8 bits one after another: 2^-9 each of the largest, which mostly cancel.
      EXPECT_NEAR(lowered.loss(), expected.loss(), 2e-2 * expected.loss());
      EXPECT_NE(lowered.loss(), expected.loss());
      std::vector<float> all, difference;
      for (const auto& e : expected.model.table.parameters) {
        const auto a = expected.gradient(e.name), b = lowered.gradient(e.name);
        for (size_t i = 0; i < a.size(); ++i) all.push_back(a[i]), difference.push_back(b[i] - a[i]);
      }
      // Where a ReLU or a maximum flips its choice, a sample's gradient goes another way.
      EXPECT_LT(norm(difference), (net.smooth ? 2e-2 : 6e-2) * norm(all));
    }
}

TEST(Precision, WhatIsSummedStaysFp32) {
  for (const Net& net : nets()) {
    SCOPED_TRACE(net.name);
    Graph g = training_graph(net, 4, false);
    lower_precision(g, bf16_on(Device::simt));
    int64_t lowered = 0;
    for (const Node& n : g.nodes())
      for (const auto& list : {n.in, n.out})
        for (ValueId v : list) {
          const Value& value = g.value(v);
          const bool bf16 = value.spec.dtype == DType::bf16;
          lowered += bf16;
          if (value.storage == Storage::parameter || value.storage == Storage::gradient) {
            EXPECT_FALSE(bf16) << n.op << " " << value.name;
          }
          if (n.op.starts_with("cross_entropy") || n.op.starts_with("log_softmax")) {
            EXPECT_FALSE(bf16) << n.op;
          }
          if (value.storage == Storage::half) {
            EXPECT_TRUE(bf16) << n.op;
            EXPECT_TRUE(n.op.starts_with("conv2d") || n.op.starts_with("linear")) << n.op;
          }
        }
    EXPECT_GT(lowered, 0);
    for (const Node& n : g.nodes())
      if (n.op == "conv2d" || n.op == "linear") {
        const bool last = n.name == "fc";  // its scores go to the loss
        EXPECT_EQ(g.value(n.in[0]).spec.dtype, last ? DType::f32 : DType::bf16);
        EXPECT_EQ(g.value(n.in[1]).storage, last ? Storage::parameter : Storage::half);
        EXPECT_EQ(g.value(n.in[2]).storage, Storage::parameter);
        EXPECT_EQ(g.value(n.out[0]).spec.dtype, last ? DType::f32 : DType::bf16);
      }
    // Around the last layer: its input for both directions, and the gradient that it hands back, which stays
    // fp32 until it meets a bf16 value (through a dropout, a sum of several).
    EXPECT_LE(count_ops(g, "cast"), 6);
  }
}

// Without a backward part nobody writes the copies: they are made on the way.
TEST(Precision, EvaluationCastsItsWeights) {
  Graph g;
  GraphBuilder b(g);
  const Layers l{b, kNoValue};
  const ValueId x = b.input("x", {DType::f32, {2, kChannels, kSide, kSide}, Layout::plain}, true);
  const ValueId y = l.linear("fc", l.project("mix", l.conv("conv", x, 4, 3)), 3);
  g.value(y).storage = Storage::output;
  lower_precision(g, bf16_on(Device::simt));
  EXPECT_TRUE(g.values_in(Storage::half).empty());
  EXPECT_EQ(g.value(y).spec.dtype, DType::f32);
  // The image, three weights, and the output, which others read.
  EXPECT_EQ(count_ops(g, "cast"), 5);
}

TEST(Precision, Fp32IsLeftAlone) {
  const Graph before = training_graph(nets()[0], 4, false);
  Graph after = before;
  lower_precision(after, {Device::cpu, 1, "test", ""});
  EXPECT_EQ(after.value_count(), before.value_count());
  EXPECT_EQ(after.nodes().size(), before.nodes().size());
}

}  // namespace
}  // namespace lockstep::testing
