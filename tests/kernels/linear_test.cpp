// SPDX-License-Identifier: Apache-2.0
// Tolerance: sums of up to 9,216 products in float, one after the other; random rounding grows with the root
// of their count, 6e-8 * sqrt(9,216) = 6e-6, against the largest output, which grows so too. 1e-5 covers that
// and the vector activations.
#include "kernels/linear/linear.h"

#include <gtest/gtest.h>

#include "tests/support/kernel_cases.h"

namespace lockstep::testing::linear_test {
namespace {

constexpr double kTolerance = 1e-5;

struct Setting {
  std::string label;
  Shape x;
  int64_t m = 0;
  bool bias = true, watched = true;
  bool tokens = false;  // of x [N, T, K], one by one
  int64_t k() const { return tokens ? x[2] : x.elements_from(1); }
  Shape w() const { return {m, k()}; }
  Shape y() const { return tokens ? Shape{x[0], x[1], m} : Shape{x[0], m}; }
};

std::vector<Setting> settings() {
  return {
      {"mnist", {33, 320}, 10},
      {"mnist, an image as it is", {17, 20, 4, 4}, 50},
      {"one of each", {1, 1}, 1},
      {"one sample", {1, 50}, 10, false},
      {"tails everywhere", {15, 37}, 19},
      {"less than a vector", {16, 5}, 3, false},
      {"a vector exactly", {16, 16}, 16},
      {"one more", {17, 17}, 17},
      {"one output", {33, 100}, 1},
      {"chunks of the sum", {3, 9216}, 7, true, false},
      {"wide", {48, 130}, 200, false},
      {"many samples", {300, 30}, 12},
      {"no samples", {0, 20}, 10},
      {"tokens", {2, 77, 24}, 40, true, true, true},
      {"odd tokens", {3, 7, 37}, 19, false, true, true},
      {"a token, as many as features", {5, 1, 16}, 16, true, true, true},
      {"pixels", {1, 600, 33}, 65, true, false, true},
      {"more outputs than tokens", {2, 37, 130}, 210, true, false, true},
      {"no tokens", {2, 0, 8}, 3, true, true, true},
      {"tokens of no samples", {0, 4, 8}, 3, true, true, true},
  };
}

KernelCase forward_case(const Setting& s, Activation a) {
  KernelCase c{.op = "linear",
               .label = s.label,
               .params = LinearParams{a},
               .in = {f32(s.x), f32(s.w())},
               .out = {f32(s.y())}};
  if (s.bias) c.in.push_back(f32({s.m}));
  c.batch_in = {0}, c.batch_out = {0}, c.tolerance = kTolerance, c.watched = s.watched;
  c.bf16_in = {0, 1};
  return c;
}

const bool added_cases = add_kernel_cases([] {
  std::vector<KernelCase> all;
  for (const auto& s : settings()) {
    all.push_back(forward_case(s, Activation::none));
    KernelCase input{.op = "linear_input_grad",
                     .label = s.label,
                     .params = LinearParams{},
                     .in = {f32(s.y()), f32(s.w())},
                     .out = {f32(s.x)}};
    input.batch_in = {0}, input.batch_out = {0}, input.gradient_in = {0}, input.gradient_out = {0};
    input.tolerance = kTolerance, input.watched = s.watched, input.bf16_in = {0, 1};
    all.push_back(input);
    KernelCase weight{.op = "linear_weight_grad",
                      .label = s.label,
                      .params = LinearParams{},
                      .in = {f32(s.x), f32(s.y())},
                      .out = {f32(s.w())}};
    if (s.bias) weight.out.push_back(f32({s.m}));
    weight.batch_in = {0, 1}, weight.gradient_in = {1}, weight.tolerance = kTolerance,
    weight.watched = s.watched;
    all.push_back(weight);
  }
  all.push_back(
      forward_case({"blocks of rows and groups of columns", {1030, 20}, 270, true, false}, Activation::relu));
  for (Activation a : {Activation::relu, Activation::silu, Activation::gelu, Activation::quick_gelu,
                       Activation::tanh, Activation::sigmoid}) {
    // The second is cut into chunks: the activation comes once, at the end.
    all.push_back(forward_case({name(a), {17, 20}, 11}, a));
    all.push_back(forward_case({std::string(name(a)) + ", tokens", {2, 9, 20}, 11, true, true, true}, a));
    all.push_back(forward_case({std::string(name(a)) + ", chunks", {17, 300}, 5, false}, a));
  }
  return all;
});

Buffer random_buffer(const Shape& shape, unsigned seed) {
  const Buffer b(f32(shape));
  std::mt19937 random(seed);
  fill_uniform(b, random);
  return b;
}

const bool added_gradients = add_gradient_cases([] {
  std::vector<GradientCase> all;
  for (const auto& s : settings()) {
    if (s.x.elements() == 0 || s.k() > 1000) continue;  // long sums leave central differences too few digits
    std::vector<Buffer> inputs;
    inputs.reserve(3);
    inputs.push_back(random_buffer(s.x, 1));
    inputs.push_back(random_buffer(s.w(), 2));
    if (s.bias) inputs.push_back(random_buffer({s.m}, 3));
    all.push_back({.label = "linear " + s.label,
                   .ops = {"linear", "linear_input_grad", "linear_weight_grad"},
                   .inputs = inputs,
                   .loss =
                       [y = s.y()](const std::vector<Buffer>& in) {
                         return weighted_sum(run_reference("linear", LinearParams{}, in, {f32(y)}), 7);
                       },
                   .gradient =
                       [x = s.x, y = s.y(), w = s.w()](const std::vector<Buffer>& in) {
                         const Buffer dy = weighted_sum_gradient({f32(y)}, 7)[0];
                         std::vector<Buffer> d =
                             run_reference("linear_input_grad", LinearParams{}, {dy, in[1]}, {f32(x)});
                         std::vector<TensorSpec> out = {f32(w)};
                         if (in.size() > 2) out.push_back(f32({w[0]}));
                         for (auto& g : run_reference("linear_weight_grad", LinearParams{}, {in[0], dy}, out))
                           d.push_back(g);
                         return d;
                       }});
  }
  return all;
});

// Worked out by hand: what the reference, and so all else, is held to.
TEST(Linear, IsXTimesWTransposedPlusBias) {
  const Buffer x(f32({2, 2})), w(f32({3, 2})), b(f32({3}));
  for (int i = 0; i < 4; ++i) x.as<float>()[i] = static_cast<float>(i + 1);
  for (int i = 0; i < 6; ++i) w.as<float>()[i] = static_cast<float>(i == 0 ? 1 : 10 * i);
  for (int i = 0; i < 3; ++i) b.as<float>()[i] = 0.25f;
  const auto y = run_reference("linear", LinearParams{Activation::relu}, {x, w, b}, {f32({2, 3})})[0];
  const std::vector<float> expected = {21.25f, 80.25f, 140.25f, 43.25f, 180.25f, 320.25f};
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(y.as<float>()[i], expected[i]) << i;
}

TEST(Linear, ByShapeOfManyTokensFewerWeightsAreForGemm) {
  const auto yields = [](const Shape& x, int64_t outputs) {
    const std::vector<TensorSpec> in = {f32(x), f32({outputs, 320})}, out;
    return Registry::builtin().find("linear", "highway", Device::cpu)->yields({LinearParams{}, in, out});
  };
  EXPECT_TRUE(yields({2, 1024, 320}, 320));
  EXPECT_FALSE(yields({2, 1023, 320}, 320));
  EXPECT_FALSE(yields({2, 1024, 320}, 300));
  EXPECT_FALSE(yields({4096, 320}, 320)) << "a batch of any size decides the same";
  EXPECT_TRUE(yields({1, 320}, 1250));
}

}  // namespace
}  // namespace lockstep::testing::linear_test
