// SPDX-License-Identifier: Apache-2.0
// Fusion, layouts and dead code: the same numbers from fewer, other nodes.
#include <gtest/gtest.h>

#include "tests/runtime/graph/nets.h"

namespace lockstep::testing {
namespace {

int64_t count(const Graph& g, const std::string& op) {
  return std::count_if(g.nodes().begin(), g.nodes().end(), [&](const Node& n) { return n.op == op; });
}
const Node& the(const Graph& g, const char* op) {
  const auto it = std::find_if(g.nodes().begin(), g.nodes().end(), [&](const Node& n) { return n.op == op; });
  LOCKSTEP_ASSERT(it != g.nodes().end(), "no {}", op);
  return *it;
}

// Makes y the graph's output and appends the gradients of all parameters; returns the gradient of y.
ValueId differentiate(GraphBuilder& b, ValueId y) {
  Graph& g = b.graph();
  const ValueId dy = b.input("dy", b.spec(y), true);
  g.value(y).storage = Storage::output;
  for (auto [p, d] : append_gradients(b, {{y, dy}}, g.values_in(Storage::parameter)))
    g.value(d).storage = Storage::gradient;
  return dy;
}

// Against the same net with nothing fused, everything plain, every value in memory of its own, reference
// kernels.
TEST(Passes, KeepWhatTheGraphComputes) {
  for (const Net& net : nets())
    for (const int64_t batch : {1, 16, 19}) {
      // One net shows that threads change nothing: kernels have tests of their own for that.
      const int threads = net.name == "relu_max_pool" && batch == 16 ? 2 : 1;
      const Graph plain = training_graph(net, batch, false);
      Graph apart = plain;
      keep_apart(apart);
      Runner expected(plain, apart, batch, true),
          laid(plain, training_graph(net, batch, true), batch, false, threads),
          fused(plain, plain, batch, false, threads);
      // Nothing can be fused where the only activation's input is read again by its gradient (SiLU, GELU).
      const size_t fusable = net.name == "dropout" || net.name == "silu_group_norm" ? 0 : 1;
      EXPECT_LE(fused.plan->graph.nodes().size() + fusable, expected.plan->graph.nodes().size()) << net.name;
      for (Runner* r : {&expected, &laid, &fused}) r->run();
      for (Runner* r : {&laid, &fused}) {
        EXPECT_NEAR(r->loss(), expected.loss(), 2e-6 * expected.loss()) << net.name;
        for (const auto& e : expected.model.table.parameters) {
          const auto a = expected.gradient(e.name), b = r->gradient(e.name);
          double largest = 0;
          for (float v : a) largest = std::max(largest, std::fabs(double{v}));
          // Sums of up to 19 * 64 float terms in another order, through some ten layers; a bias before batch
          // norm has a true gradient of 0 and keeps the rounding of terms of about 0.1.
          for (size_t i = 0; i < a.size(); ++i)
            ASSERT_NEAR(b[i], a[i], 2e-5 * largest + 1e-6) << net.name << " " << e.name << "[" << i << "]";
        }
      }
    }
}

TEST(Fuse, ActivationGoesIntoConvolutionAndLinear) {
  Graph g;
  GraphBuilder b(g);
  const Layers l{b, kNoValue};
  const ValueId x = b.input("x", {DType::f32, {2, kChannels, kSide, kSide}, Layout::plain}, true);
  const ValueId y = l.relu(l.linear("fc", b.elementwise(Elt::gelu, {l.conv("conv", x, 4, 3)}), 3));
  g.value(y).storage = Storage::output;
  ASSERT_EQ(count(g, "elementwise"), 2);
  fuse(g);
  EXPECT_EQ(count(g, "elementwise"), 0);
  EXPECT_EQ(the(g, "conv2d").params.as<Conv2dParams>().activation, Activation::gelu);
  EXPECT_EQ(the(g, "linear").params.as<LinearParams>().activation, Activation::relu);
  EXPECT_EQ(the(g, "linear").out[0], y);
}

TEST(Fuse, ActivationWhoseInputIsReadAgainStays) {
  Graph g;
  GraphBuilder b(g);
  const Layers l{b, kNoValue};
  const ValueId x = b.input("x", {DType::f32, {2, kChannels, kSide, kSide}, Layout::plain}, true);
  const ValueId c = l.conv("conv", x, 4, 3), y = b.elementwise(Elt::silu, {c}), z = l.max_pool(c);
  g.value(y).storage = g.value(z).storage = Storage::output;
  fuse(g);
  EXPECT_EQ(count(g, "elementwise"), 1);
  EXPECT_EQ(the(g, "conv2d").params.as<Conv2dParams>().activation, Activation::none);
}

TEST(Fuse, SiluGoesIntoGroupNormInBothDirections) {
  Graph g;
  GraphBuilder b(g);
  const Layers l{b, kNoValue};
  const ValueId x = b.input("x", {DType::f32, {2, kChannels, kSide, kSide}, Layout::plain}, true);
  const ValueId c = l.conv("conv", x, 4, 3), y = b.elementwise(Elt::silu, {l.group_norm("gn", c, 2)});
  const ValueId dy = differentiate(b, y);
  ASSERT_EQ(count(g, "elementwise"), 2);
  fuse(g);
  EXPECT_EQ(count(g, "elementwise"), 0);
  for (const char* op : {"group_norm", "group_norm_grad"})
    EXPECT_EQ(the(g, op).params.as<GroupNormParams>().activation, Activation::silu) << op;
  EXPECT_EQ(the(g, "group_norm").out[0], y);
  EXPECT_EQ(the(g, "group_norm_grad").in[1], dy);
}

TEST(Fuse, SiluOfAGroupNormThatIsReadAgainStays) {
  Graph g;
  GraphBuilder b(g);
  const Layers l{b, kNoValue};
  const ValueId x = b.input("x", {DType::f32, {2, 4, kSide, kSide}, Layout::plain}, true);
  const ValueId z = l.group_norm("gn", x, 2), y = b.elementwise(Elt::silu, {z}), w = l.max_pool(z);
  const ValueId dy = b.input("dy", b.spec(y), true), dw = b.input("dw", b.spec(w), true);
  g.value(y).storage = g.value(w).storage = Storage::output;
  for (auto [p, d] : append_gradients(b, {{y, dy}, {w, dw}}, g.values_in(Storage::parameter)))
    g.value(d).storage = Storage::gradient;
  fuse(g);
  for (const char* op : {"group_norm", "group_norm_grad"})
    EXPECT_EQ(the(g, op).params.as<GroupNormParams>().activation, Activation::none) << op;
}

TEST(Fuse, ReluGoesIntoBatchNormInAllDirections) {
  Graph g;
  GraphBuilder b(g);
  const Layers l{b, kNoValue};
  const ValueId x = b.input("x", {DType::f32, {2, kChannels, kSide, kSide}, Layout::plain}, true);
  const ValueId c = l.conv("conv", x, 4, 3), y = l.relu(l.batch_norm("bn", c));
  const ValueId dy = differentiate(b, y);
  ASSERT_EQ(count(g, "elementwise"), 2);
  fuse(g);
  EXPECT_EQ(count(g, "elementwise"), 0);
  const Node& apply = the(g, "batch_norm_apply");
  const ValueId gamma = apply.in[2], beta = apply.in[3];
  EXPECT_EQ(apply.out[0], y);
  for (const char* op : {"batch_norm_apply", "batch_norm_grad_sums", "batch_norm_input_grad"})
    EXPECT_EQ(the(g, op).params.as<BatchNormParams>().activation, Activation::relu) << op;
  const Node &sums = the(g, "batch_norm_grad_sums"), &input = the(g, "batch_norm_input_grad");
  EXPECT_EQ(sums.in, (std::vector<ValueId>{c, dy, apply.in[1], gamma, beta}));
  ASSERT_EQ(input.in.size(), 6u);
  EXPECT_EQ(input.in[1], dy);
  EXPECT_EQ(input.in[5], beta);
}

// The sum may stand before or after what is added to it; the gradient of the sum goes both ways, so it stays.
TEST(Fuse, SumAndReluGoIntoBatchNorm) {
  for (const bool norm_first : {true, false}) {
    Graph g;
    GraphBuilder b(g);
    const Layers l{b, kNoValue};
    const ValueId x = b.input("x", {DType::f32, {2, 4, kSide, kSide}, Layout::plain}, true);
    const ValueId c = l.conv("conv", x, 4, 3, 1), z = l.batch_norm("bn", c), r = l.conv("skip", x, 4, 1);
    const ValueId y = l.relu(b.elementwise(Elt::add, norm_first ? std::vector{z, r} : std::vector{r, z}));
    differentiate(b, y);
    fuse(g);
    const Node& apply = the(g, "batch_norm_apply");
    ASSERT_EQ(apply.in.size(), 5u);
    EXPECT_EQ(apply.in[4], r);
    EXPECT_EQ(apply.out[0], y);
    EXPECT_EQ(apply.params.as<BatchNormParams>().activation, Activation::relu);
    ASSERT_EQ(count(g, "elementwise"), 1);
    EXPECT_EQ(the(g, "batch_norm_grad_sums").in.size(), 3u);
    EXPECT_EQ(the(g, "batch_norm_grad_sums").in[1], the(g, "elementwise").out[0]);
  }
}

TEST(Fuse, ABatchNormThatIsReadAgainKeepsItsRelu) {
  Graph g;
  GraphBuilder b(g);
  const Layers l{b, kNoValue};
  const ValueId x = b.input("x", {DType::f32, {2, 4, kSide, kSide}, Layout::plain}, true);
  const ValueId z = l.batch_norm("bn", x), y = l.relu(z), w = l.max_pool(z);
  g.value(y).storage = g.value(w).storage = Storage::output;
  fuse(g);
  EXPECT_EQ(count(g, "elementwise"), 1);
  EXPECT_EQ(the(g, "batch_norm_apply").params.as<BatchNormParams>().activation, Activation::none);
}

// relu before or after a pooling, forward and backward: two nodes are left, and the gradient that was relu's.
TEST(Fuse, AReluBesideAMaxPoolGoesIntoIt) {
  for (const bool relu_first : {false, true}) {
    Graph g;
    GraphBuilder b(g);
    const Layers l{b, kNoValue};
    const ValueId x =
        l.conv("conv", b.input("x", {DType::f32, {2, 4, kSide, kSide}, Layout::plain}, true), 4, 3);
    const ValueId y = relu_first ? l.max_pool(l.relu(x)) : l.relu(l.max_pool(x));
    const ValueId dy = differentiate(b, y);
    fuse(g);
    EXPECT_EQ(count(g, "elementwise"), 0) << relu_first;
    const Node &pool = the(g, "max_pool2d"), &grad = the(g, "max_pool2d_grad");
    EXPECT_TRUE(pool.params.as<Pool2dParams>().relu());
    EXPECT_TRUE(grad.params.as<Pool2dParams>().relu());
    EXPECT_EQ(pool.in[0], x);
    EXPECT_EQ(pool.out[0], y);
    EXPECT_EQ(grad.in[0], dy);
    EXPECT_EQ(the(g, "conv2d").params.as<Conv2dParams>().activation, Activation::none);
    EXPECT_EQ(the(g, "conv2d_weight_grad").in[1], grad.out[0]);
  }
}

TEST(Fuse, AMaxPoolThatIsReadAgainKeepsItsRelu) {
  Graph g;
  GraphBuilder b(g);
  const Layers l{b, kNoValue};
  const ValueId x = b.input("x", {DType::f32, {2, 4, kSide, kSide}, Layout::plain}, true);
  const ValueId p = l.max_pool(x), y = l.relu(p), w = l.avg_pool(p);
  const ValueId r = l.relu(x), q = l.max_pool(r), u = l.avg_pool(r);
  for (const ValueId v : {y, w, q, u}) g.value(v).storage = Storage::output;
  fuse(g);
  EXPECT_EQ(count(g, "elementwise"), 2);
  for (const Node& n : g.nodes())
    if (n.op == "max_pool2d") {
      EXPECT_FALSE(n.params.as<Pool2dParams>().relu());
    }
}

TEST(Fuse, ChainsBecomeOneProgram) {
  Graph g;
  GraphBuilder b(g);
  const Layers l{b, kNoValue};
  const ValueId x = b.input("x", {DType::f32, {2, kChannels, kSide, kSide}, Layout::plain}, true);
  const ValueId p = l.max_pool(x), q = l.avg_pool(x);
  const ValueId sum = b.elementwise(Elt::add, {p, q}), y = l.relu(sum);
  const ValueId z = l.avg_pool(y), w = l.avg_pool(sum);  // the sum is read after: it becomes a second output
  g.value(z).storage = g.value(w).storage = Storage::output;
  fuse(g);
  ASSERT_EQ(count(g, "elementwise"), 1);
  const Node& n = the(g, "elementwise");
  const auto& program = n.params.as<ElementwiseParams>();
  ASSERT_EQ(program.code.size(), 2u);
  EXPECT_EQ(program.code[0].op, Elt::add);
  EXPECT_EQ(program.code[1].op, Elt::relu);
  EXPECT_EQ(n.in, (std::vector<ValueId>{p, q}));
  EXPECT_EQ(n.out, (std::vector<ValueId>{y, sum}));
  EXPECT_EQ(program.outputs, (std::vector<int>{3, 2}));
}

TEST(Fuse, ChainLongerThanTheInterpreterIsCut) {
  Graph g;
  GraphBuilder b(g);
  const Layers l{b, kNoValue};
  ValueId x = l.avg_pool(b.input("x", {DType::f32, {2, kChannels, kSide, kSide}, Layout::plain}, true));
  for (int i = 0; i < 2 * ElementwiseParams::kMaxRegisters; ++i) x = b.elementwise(Elt::tanh, {x});
  g.value(l.avg_pool(x)).storage = Storage::output;
  fuse(g);
  EXPECT_EQ(count(g, "elementwise"), 3);
  for (const Node& n : g.nodes())
    if (n.op == "elementwise") {
      const auto& p = n.params.as<ElementwiseParams>();
      EXPECT_LE(p.inputs + static_cast<int>(p.code.size()), ElementwiseParams::kMaxRegisters);
    }
}

TEST(Layouts, FewChannelsLieInLanesManyLast) {
  const auto all = nets();
  const auto wide = std::find_if(all.begin(), all.end(), [](const Net& n) { return n.name == "wide_conv"; });
  const Graph g = training_graph(*wide, 5, true);
  std::map<std::string, Layout> of;
  for (const Node& n : g.nodes()) {
    if (n.op != "conv2d" || n.backward) continue;
    of[n.name] = g.value(n.out[0]).spec.layout;
    EXPECT_EQ(g.value(n.in[0]).spec.layout, of[n.name]) << n.name;
    EXPECT_EQ(g.value(n.in[1]).spec.layout, Layout::plain) << "weights have no batch";
  }
  EXPECT_EQ(of, (std::map<std::string, Layout>{{"conv1", Layout::lanes},
                                               {"conv2", Layout::nhwc},
                                               {"conv3", Layout::nhwc},
                                               {"conv4", Layout::nhwc}}));
  // One reorder into nhwc and one out of it, for the linear layer, on the way there, both back in the
  // gradient; the image is normalised straight into lanes.
  EXPECT_EQ(count(g, "reorder"), 4);
  EXPECT_EQ(g.value(the(g, "image_normalize").out[0]).spec.layout, Layout::lanes);
}

// What fills vectors, and tensor cores, lies channels last on every device; few channels in lanes where there
// are some.
TEST(Layouts, LanesAreOfF32OnACpu) {
  for (Device device : {Device::cpu, Device::simt, Device::cuda})
    for (DType activations : {DType::f32, DType::bf16}) {
      Graph g;
      GraphBuilder b(g);
      const Layers l{b, kNoValue};
      const ValueId image = b.input(kImages, {DType::u8, {5, kChannels, kSide, kSide}, Layout::plain}, true);
      const ValueId x = b.add1("image_normalize", ImageNormalizeParams{{0, 0, 0}, {1, 1, 1}}, {image});
      ValueId few = l.conv("few", x, 8, 3), many = l.conv("many", few, 64, 3),
              more = l.conv("more", many, 64, 3);
      const Graph laid = assign_layouts(g, {&few, &many, &more}, device, activations);
      const bool lanes = device == Device::cpu && activations == DType::f32;
      EXPECT_EQ(laid.value(few).spec.layout, lanes ? Layout::lanes : Layout::plain);
      EXPECT_EQ(laid.value(many).spec.layout, Layout::nhwc);
      EXPECT_EQ(laid.value(more).spec.layout, Layout::nhwc);
    }
}

TEST(Layouts, OneReorderServesAllReaders) {
  Graph g;
  GraphBuilder b(g);
  const Layers l{b, kNoValue};
  const ValueId image = b.input(kImages, {DType::u8, {5, kChannels, kSide, kSide}, Layout::plain}, true);
  const ValueId x = b.add1("image_normalize", ImageNormalizeParams{{0, 0, 0}, {1, 1, 1}}, {image});
  const ValueId c = l.conv("few", x, 8, 3);
  ValueId sum = b.elementwise(Elt::add, {l.conv("many1", c, 40, 3), l.conv("many2", c, 40, 3)});
  const Graph laid = assign_layouts(g, {&sum});
  EXPECT_EQ(count(laid, "reorder"), 1);
  EXPECT_EQ(laid.value(sum).spec.layout, Layout::nhwc);
}

// What the host writes is plain, whatever its readers want.
TEST(Layouts, InputsOfF32AreReorderedForTheirReaders) {
  for (const int64_t channels : {8, 32}) {
    Graph g;
    GraphBuilder b(g);
    const ValueId image = b.input("x", {DType::f32, {2, channels, 4, 4}, Layout::plain}, true);
    ValueId y = Layers{b, kNoValue}.conv("conv", image, channels, 3);
    const Graph laid = assign_layouts(g, {&y});
    const Node& conv = the(laid, "conv2d");
    EXPECT_EQ(laid.value(y).spec.layout, channels == 8 ? Layout::lanes : Layout::nhwc);
    EXPECT_EQ(laid.value(conv.in[0]).spec.layout, laid.value(y).spec.layout);
    EXPECT_EQ(laid.value(the(laid, "reorder").in[0]).storage, Storage::input);
    EXPECT_EQ(laid.value(the(laid, "reorder").in[0]).spec.layout, Layout::plain);
  }
}

// An image in nhwc and its tokens are the same memory: of reorders there are none between.
TEST(Layouts, TokensAreViewsOfImagesInNhwc) {
  Graph g;
  GraphBuilder b(g);
  const Layers l{b, kNoValue};
  const ValueId images = b.input("x", {DType::f32, {2, 32, 4, 4}, Layout::plain}, true);
  const ValueId x = l.conv("conv1", images, 32, 3, 1);
  const ValueId t = l.token_linear("fc", l.layer_norm("ln", b.tokens(x)), 32);
  ValueId y = l.conv("conv2", b.elementwise(Elt::add, {b.image(t, 4, 4), x}), 32, 3, 1);
  g.value(y).storage = Storage::output;
  const Graph laid = assign_layouts(g, {&y});
  EXPECT_EQ(count(laid, "reorder"), 1);  // of the input, which lies as the host writes it
  EXPECT_EQ(count(laid, "view"), 2);
  EXPECT_EQ(laid.value(y).spec.layout, Layout::nhwc);
}

TEST(DeadCode, GoesAndWhatMattersStays) {
  Graph g;
  GraphBuilder b(g);
  const Layers l{b, kNoValue};
  const ValueId x = b.input("x", {DType::f32, {2, kChannels, kSide, kSide}, Layout::plain}, true);
  const ValueId y = l.conv("conv", x, 4, 3);
  const ValueId dead = l.relu(l.max_pool(y));  // two nodes, the first read by the second only
  b.view(dead, {2, 36});
  const ValueId kept = l.avg_pool(y);
  g.value(kept).storage = Storage::output;
  b.allreduce(b.add1("batch_norm_stats", BatchNormParams{}, {y}));  // a collective: other ranks wait in it
  remove_dead_nodes(g);
  std::vector<std::string> ops;
  for (const Node& n : g.nodes()) ops.push_back(n.op);
  EXPECT_EQ(ops, (std::vector<std::string>{"conv2d", "avg_pool2d", "batch_norm_stats", "allreduce"}));
}

}  // namespace
}  // namespace lockstep::testing
