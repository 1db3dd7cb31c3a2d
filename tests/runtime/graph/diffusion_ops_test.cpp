// SPDX-License-Identifier: Apache-2.0
// Shapes, layouts and errors of the diffusion ops in a graph.
#include <gtest/gtest.h>

#include "kernels/diffusion/label_dropout.h"
#include "kernels/diffusion/noise.h"
#include "kernels/diffusion/posterior.h"
#include "runtime/graph/kernel_table.h"
#include "tests/runtime/graph/nets.h"

namespace lockstep::testing {
namespace {

struct Step {
  Graph g;
  ValueId labels, step_state, target, weights, prediction, metrics;
};

// One convolution predicts the noise.
Step denoising_step(int64_t batch) {
  Step s;
  GraphBuilder b(s.g);
  const ValueId image = b.input(kImages, {DType::u8, {batch, kChannels, kSide, kSide}, Layout::plain}, true);
  const ValueId labels = b.input(kLabels, {DType::i32, {batch}, Layout::plain}, true);
  s.step_state = b.input(kStepState, {DType::u8, {sizeof(StepState)}, Layout::plain}, false);
  const ValueId x0 =
      b.add1("image_normalize", ImageNormalizeParams{{0.5f, 0.5f, 0.5f}, {0.5f, 0.5f, 0.5f}}, {image});
  const auto noisy = b.add("diffusion_noise", DiffusionNoiseParams{{0.9, 0.5, 0.1}}, {x0, s.step_state});
  s.labels = b.add1("label_dropout", LabelDropoutParams{0.1f, 10}, {labels, s.step_state});
  s.target = noisy[1], s.weights = noisy[3];
  s.prediction = Layers{b, s.step_state}.conv("conv", noisy[0], kChannels, 3, 1);
  s.metrics = b.add1("weighted_mse", NoParams{}, {s.prediction, s.target, s.weights});
  return s;
}

const Node& the_node(const Graph& g, const char* op) {
  return *std::find_if(g.nodes().begin(), g.nodes().end(), [&](const Node& n) { return n.op == op; });
}

TEST(DiffusionOps, Shapes) {
  const Step s = denoising_step(5);
  const auto spec = [&](ValueId v) { return s.g.value(v).spec.text(); };
  const std::string image = fmt::format("f32[5, {}, {}, {}]:plain", kChannels, kSide, kSide);
  const Node& noise = the_node(s.g, "diffusion_noise");
  EXPECT_EQ(spec(noise.out[0]), image);
  EXPECT_EQ(spec(noise.out[1]), image);
  EXPECT_EQ(spec(noise.out[2]), "i32[5]:plain");
  EXPECT_EQ(spec(noise.out[3]), "f32[5]:plain");
  EXPECT_EQ(spec(s.labels), "i32[5]:plain");
  EXPECT_EQ(spec(s.metrics), "f32[2]:plain");
}

TEST(DiffusionOps, LatentsHaveHalfTheChannelsOfTheirMoments) {
  Step s = denoising_step(5);
  GraphBuilder b(s.g);
  const ValueId moments = b.input("m", {DType::f32, {5, 8, 6, 4}, Layout::plain}, true);
  EXPECT_EQ(b.spec(b.add1("posterior_sample", PosteriorParams{}, {moments, s.step_state})).text(),
            "f32[5, 4, 6, 4]:plain");
}

// The convolution lies in lanes here, and with it prediction and target; vectors of one number a sample stay
// plain, without a reorder.
TEST(DiffusionOps, NumbersBySampleArePlainInEveryLayout) {
  const Step s = denoising_step(5);
  const Graph g = assign_layouts(s.g, {}, Device::cpu);
  const Node& loss = the_node(g, "weighted_mse");
  EXPECT_EQ(g.value(loss.in[0]).spec.layout, Layout::lanes);
  EXPECT_EQ(g.value(loss.in[1]).spec.layout, Layout::lanes);
  EXPECT_EQ(g.value(loss.in[2]).spec.layout, Layout::plain);
  EXPECT_EQ(loss.in[2], the_node(g, "diffusion_noise").out[3]);
}

// Ranks with other numbers of samples, and a shorter last batch, use the same kernels.
TEST(DiffusionOps, SignaturesDoNotDependOnTheBatch) {
  const Step a = denoising_step(5), b = denoising_step(17);
  for (size_t i = 0; i < a.g.nodes().size(); ++i)
    EXPECT_EQ(kernel_signature(a.g, a.g.nodes()[i]), kernel_signature(b.g, b.g.nodes()[i]));
}

template <class F>
std::string refusal(F f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.exit(), Exit::config);
    return e.what();
  }
  return "accepted";
}

TEST(DiffusionOps, ShapesThatDoNotFitAreRefused) {
  Step s = denoising_step(5);
  GraphBuilder b(s.g);
  const ValueId other = b.input("x", {DType::f32, {5, 1, kSide, kSide}, Layout::plain}, true);
  const ValueId vector = b.input("v", {DType::f32, {4}, Layout::plain}, true);
  const std::string wanted = fmt::format("[5, {}, {}, {}]", kChannels, kSide, kSide);
  const auto expect = [](const std::string& message, const std::vector<std::string>& parts) {
    for (const auto& p : parts) EXPECT_NE(message.find(p), std::string::npos) << message << " lacks " << p;
  };
  expect(refusal([&] {
           b.add("weighted_mse", NoParams{}, {other, s.target, s.weights});
         }),
         {"predicts [5, 1,", wanted});
  expect(refusal([&] {
           b.add("weighted_mse", NoParams{}, {s.prediction, s.target, vector});
         }),
         {wanted, "[4]"});
  expect(refusal([&] {
           b.add("diffusion_noise", DiffusionNoiseParams{{0.5}}, {vector, s.step_state});
         }),
         {"[4]"});
  expect(refusal([&] { b.add("label_dropout", LabelDropoutParams{}, {other, s.step_state}); }), {"[5, 1,"});
  expect(refusal([&] { b.add("posterior_sample", PosteriorParams{}, {other, s.step_state}); }), {"[5, 1,"});
}

}  // namespace
}  // namespace lockstep::testing
