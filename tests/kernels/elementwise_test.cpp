// SPDX-License-Identifier: Apache-2.0
// Tolerance: one instruction in float against double is off by the errors that math-inl.h states, at most
// 4e-7 of the result, and the *_grad ones lose as much again in 1 - s and 1 - y*y: 1e-6 of the largest. A
// chain multiplies that by what its later instructions magnify, at most 4 here: 4e-6.
#include "kernels/elementwise/elementwise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>

#include "kernels/core/activation.h"
#include "kernels/core/cpu_target.h"
#include "kernels/elementwise/program.h"
#include "tests/support/combinations.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing::elementwise_test {
namespace {

constexpr double kOne = 1e-6, kChain = 4e-6;

const Elt kAll[] = {
    Elt::copy,      Elt::relu,      Elt::silu,      Elt::gelu,         Elt::tanh,       Elt::sigmoid,
    Elt::add,       Elt::sub,       Elt::mul,       Elt::scale,        Elt::add_imm,    Elt::relu_grad,
    Elt::silu_grad, Elt::gelu_grad, Elt::tanh_grad, Elt::sigmoid_grad, Elt::quick_gelu, Elt::quick_gelu_grad};

ElementwiseParams single(Elt op, float imm = 0) {
  const int operands = operand_count(op);
  return {.inputs = operands, .code = {{op, 0, operands - 1, imm}}, .outputs = {operands}};
}

struct Chain {
  std::string label;
  ElementwiseParams p;
};

std::vector<Chain> chains() {
  std::vector<Chain> all;
  all.push_back({"scaled residual", {2, {{Elt::scale, 0, 0, 0.7f}, {Elt::add, 1, 2}, {Elt::relu, 3}}, {4}}});
  // relu(x0) is stored although x0 and x1 are read later: not before, since it may be their buffer.
  all.push_back({"early output", {2, {{Elt::relu, 0}, {Elt::mul, 2, 1}, {Elt::sub, 3, 0}}, {2, 4}}});
  all.push_back({"inputs swapped", {2, {}, {1, 0}}});
  all.push_back({"one result twice, an input too", {2, {{Elt::tanh, 1}}, {2, 2, 0}}});
  all.push_back({"result unused", {1, {{Elt::relu, 0}, {Elt::silu, 0}, {Elt::add_imm, 2, 0, 0.25f}}, {3}}});
  all.push_back({"same operand twice",
                 {1, {{Elt::add, 0, 0}, {Elt::mul, 1, 1}, {Elt::sub, 2, 2}, {Elt::add, 3, 2}}, {4}}});
  all.push_back({"every instruction",
                 {3,
                  {{Elt::copy, 0},
                   {Elt::silu, 3},
                   {Elt::gelu, 1},
                   {Elt::add, 4, 5},
                   {Elt::tanh, 6},
                   {Elt::sigmoid, 2},
                   {Elt::mul, 7, 8},
                   {Elt::tanh_grad, 7, 9},
                   {Elt::sigmoid_grad, 8, 10},
                   {Elt::silu_grad, 0, 11},
                   {Elt::gelu_grad, 1, 12},
                   {Elt::relu_grad, 2, 13},
                   {Elt::sub, 14, 9},
                   {Elt::scale, 15, 0, -1.5f},
                   {Elt::add_imm, 16, 0, 0.125f},
                   {Elt::relu, 17},
                   {Elt::quick_gelu, 18},
                   {Elt::quick_gelu_grad, 0, 19}},
                  {20, 9, 6}}});
  Chain longest{"as many registers as there may be", {1, {}, {}}};
  for (int r = 1; r < ElementwiseParams::kMaxRegisters; ++r)
    longest.p.code.push_back({Elt::sub, r - 1, std::max(0, r - 3), 0});
  for (int r = 1; r < ElementwiseParams::kMaxRegisters; r += 5) longest.p.outputs.push_back(r);
  all.push_back(longest);
  return all;
}

std::vector<KernelCase> cases() {
  std::vector<KernelCase> all;
  const auto add = [&](const std::string& label, const ElementwiseParams& p, const Shape& shape,
                       double tolerance) {
    KernelCase c{.op = "elementwise", .label = label + " " + shape.text(), .params = p};
    for (int i = 0; i < p.inputs; ++i) c.in.push_back(f32(shape)), c.batch_in.push_back(i);
    for (size_t o = 0; o < p.outputs.size(); ++o) {
      c.out.push_back(f32(shape)), c.batch_out.push_back(static_cast<int>(o));
      if (static_cast<int>(o) < p.inputs) c.in_place.emplace_back(static_cast<int>(o), static_cast<int>(o));
    }
    c.tolerance = tolerance;
    c.fill = [](std::vector<Buffer>& in, std::mt19937& random) {
      for (const Buffer& b : in) fill_uniform(b, random, -3, 3);
    };
    all.push_back(c);
  };
  for (Elt op : kAll)
    for (const Shape& shape : {Shape{1, 1}, Shape{17, 3, 5, 7}, Shape{33, 31}})
      add(name(op), single(op, 1.7f), shape, kOne);
  add("relu", single(Elt::relu), {0, 4}, kOne);
  for (const Chain& c : chains())  // within a tile, over several, over several threads
    for (const Shape& shape : {Shape{1, 7}, Shape{16, 5, 11, 3}, Shape{19, 1021}})
      add(c.label, c.p, shape, kChain);
  return all;
}
const bool added = add_kernel_cases(cases);

// Each forward instruction against its gradient instruction, which takes x or y.
GradientCase gradient_case(Elt forward, Elt backward, bool takes_output, float low, float high) {
  const Shape shape = {7, 9};
  const Buffer x(f32(shape));
  std::mt19937 random(2);
  fill_uniform(x, random, low, high);
  const auto run = [=](const std::vector<Buffer>& in, Elt op) {
    return run_reference("elementwise", single(op), in, {f32(shape)});
  };
  return {.label = name(forward),
          .ops = {"elementwise"},
          .inputs = {x},
          .loss = [=](const std::vector<Buffer>& in) { return weighted_sum(run(in, forward), 6); },
          .gradient =
              [=](const std::vector<Buffer>& in) {
                const Buffer kept = takes_output ? run(in, forward)[0] : in[0];
                return run({kept, weighted_sum_gradient({f32(shape)}, 6)[0]}, backward);
              },
          .step = 1e-3};
}
const bool added_gradients = add_gradient_cases([] {
  return std::vector<GradientCase>{
      gradient_case(Elt::relu, Elt::relu_grad, true, 0.1f, 2),  // away from the kink, on both sides
      gradient_case(Elt::relu, Elt::relu_grad, true, -2, -0.1f),
      gradient_case(Elt::silu, Elt::silu_grad, false, -4, 4),
      gradient_case(Elt::gelu, Elt::gelu_grad, false, -4, 4),
      gradient_case(Elt::quick_gelu, Elt::quick_gelu_grad, false, -4, 4),
      gradient_case(Elt::tanh, Elt::tanh_grad, true, -2, 2),
      gradient_case(Elt::sigmoid, Elt::sigmoid_grad, true, -4, 4)};
});

std::vector<float> evaluate(Elt op, const std::vector<float>& x) {
  const Buffer b(f32({static_cast<int64_t>(x.size())}));
  std::copy(x.begin(), x.end(), b.as<float>());
  std::vector<Buffer> in{b};
  if (operand_count(op) == 2) {
    const Buffer one(b.spec());
    std::fill_n(one.as<float>(), x.size(), 1.0f);
    in.push_back(one);
  }
  const Buffer y = run_kernel("elementwise", "highway", single(op), in, {b.spec()})[0];
  return {y.as<float>(), y.as<float>() + x.size()};
}

double phi(double x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi); }
double cdf(double x) { return std::erfc(-x / std::numbers::sqrt2) / 2; }
double logistic(double x) { return 1 / (1 + std::exp(-x)); }

// Largest error over [low, high], relative to |expected| + floor.
template <class F>
double largest_error(Elt op, double low, double high, double floor, F expected) {
  std::vector<float> x;
  for (int i = 0; i <= 100000; ++i) x.push_back(static_cast<float>(low + (high - low) * i / 100000));
  const auto y = evaluate(op, x);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double e = expected(double{x[i]});
    worst = std::max(worst, std::abs(double{y[i]} - e) / (std::abs(e) + floor));
  }
  return worst;
}

// The bounds that math-inl.h states, on every instruction set.
TEST(Elementwise, ErrorsOfTranscendentalFunctions) {
  const int64_t initial = cpu_target();
  for (int64_t target : targets_to_test()) {
    SCOPED_TRACE(cpu_target_name(target));
    set_cpu_target(target);
    EXPECT_LT(largest_error(Elt::sigmoid, -80, 80, 0, logistic), 3e-7);
    EXPECT_LT(largest_error(Elt::silu, -80, 80, 1e-30, [](double x) { return x * logistic(x); }), 3e-7);
    EXPECT_LT(largest_error(Elt::tanh, -12, 12, 1e-30, [](double x) { return std::tanh(x); }), 3e-7);
    EXPECT_LT(largest_error(Elt::tanh, -1e-3, 1e-3, 1e-30, [](double x) { return std::tanh(x); }), 3e-7);
    EXPECT_LT(largest_error(Elt::gelu, -2, 12, 1e-30, [](double x) { return x * cdf(x); }), 5e-7);
    EXPECT_LT(largest_error(Elt::gelu, -5, -2, 0, [](double x) { return x * cdf(x); }), 1.5e-6);
    EXPECT_LT(largest_error(Elt::gelu_grad, -12, 12, 1, [](double x) { return cdf(x) + x * phi(x); }), 3e-7);
    // 1.702 x is rounded before its exponential.
    EXPECT_LT(largest_error(Elt::quick_gelu, -3, 12, 1e-30,
                            [](double x) { return x * logistic(double{kQuickGelu} * x); }),
              7e-7);
    EXPECT_LT(largest_error(Elt::silu_grad, -60, 60, 1,
                            [](double x) { return logistic(x) * (1 + x * (1 - logistic(x))); }),
              3e-7);
  }
  set_cpu_target(initial);
}

TEST(Elementwise, NaNStaysAndExtremesAreLimits) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), big = 3e38f;
  const int64_t initial = cpu_target();
  for (int64_t target : targets_to_test()) {
    SCOPED_TRACE(cpu_target_name(target));
    set_cpu_target(target);
    for (Elt op : {Elt::copy, Elt::relu, Elt::silu, Elt::gelu, Elt::tanh, Elt::sigmoid, Elt::silu_grad,
                   Elt::gelu_grad, Elt::quick_gelu, Elt::quick_gelu_grad})
      for (float y : evaluate(op, std::vector<float>(5, nan))) EXPECT_TRUE(std::isnan(y)) << name(op);
    EXPECT_EQ(evaluate(Elt::relu, {-big, -1, 0, big}), (std::vector<float>{0, 0, 0, big}));
    EXPECT_EQ(evaluate(Elt::tanh, {-big, big}), (std::vector<float>{-1, 1}));
    EXPECT_EQ(evaluate(Elt::quick_gelu, {1e30f}), (std::vector<float>{1e30f}));
    EXPECT_EQ(evaluate(Elt::gelu, {-1e30f, 1e30f}), (std::vector<float>{0, 1e30f}));
    EXPECT_EQ(evaluate(Elt::gelu_grad, {-1e30f, 1e30f}), (std::vector<float>{0, 1}));
    EXPECT_EQ(evaluate(Elt::sigmoid, {big}), (std::vector<float>{1}));
    EXPECT_NEAR(evaluate(Elt::sigmoid, {-big})[0], 0, 1e-38);
    EXPECT_NEAR(evaluate(Elt::silu_grad, {-100.0f})[0], 0, 1e-36);
  }
  set_cpu_target(initial);
}

// A number's bits depend on neither its position (full vector, tail, tile) nor the thread count.
TEST(Elementwise, SameBitsWhereverTheCutsFall) {
  for (const Chain& c : chains()) {
    const int64_t n = 33 * 1021;
    std::vector<Buffer> in;
    std::mt19937 random(3);
    for (int i = 0; i < c.p.inputs; ++i) {
      in.emplace_back(f32({n}));
      fill_uniform(in.back(), random, -3, 3);
    }
    const auto run = [&](int64_t first, int64_t count, int threads) {
      std::vector<Buffer> part;
      for (const Buffer& b : in) {
        part.emplace_back(f32({count}));
        std::copy_n(b.as<float>() + first, count, part.back().as<float>());
      }
      return run_kernel("elementwise", "highway", c.p, part,
                        std::vector<TensorSpec>(c.p.outputs.size(), f32({count})), threads);
    };
    const auto whole = run(0, n, 1), threaded = run(0, n, 3);
    for (size_t o = 0; o < whole.size(); ++o)
      EXPECT_EQ(std::memcmp(whole[o].data(), threaded[o].data(), static_cast<size_t>(n) * 4), 0) << c.label;
    for (int64_t count : {1, 2, 3, 7, 13, 100, 1023, 1025})
      for (int64_t first : {0, 5, 1000}) {
        const auto part = run(first, count, 1);
        for (size_t o = 0; o < whole.size(); ++o)
          EXPECT_EQ(std::memcmp(whole[o].as<float>() + first, part[o].data(), static_cast<size_t>(count) * 4),
                    0)
              << c.label << " output " << o << " first " << first << " count " << count;
      }
  }
}

// What compile() promises: slots are reused, and a program of one instruction needs none.
TEST(Elementwise, ProgramsUseFewSlots) {
  for (Elt op : kAll) {
    const auto program = elementwise::compile(single(op));
    EXPECT_EQ(program.slots, 0) << name(op);
    EXPECT_EQ(program.steps.size(), 1u) << name(op);
  }
  ElementwiseParams chain{1, {}, {20}};
  for (int r = 0; r < 20; ++r) chain.code.push_back({Elt::silu, r, 0, 0});
  EXPECT_EQ(elementwise::compile(chain).slots, 1);  // each result takes its operand's place
  ElementwiseParams two{2, {{Elt::mul, 0, 1}, {Elt::tanh, 2}, {Elt::add, 3, 0}}, {4}};
  EXPECT_EQ(elementwise::compile(two).slots, 1);
}

}  // namespace
}  // namespace lockstep::testing::elementwise_test
