// SPDX-License-Identifier: Apache-2.0
// Tolerance: GELU and its slope are off by what math-inl.h says, some 1e-6 of it at worst; a product more.
#include "kernels/geglu/geglu.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/kernel_cases.h"

namespace lockstep::testing::geglu_test {
namespace {

// One number, below, at and above a vector, several rows; no row, no sample.
std::vector<Shape> shapes() {
  return {{1, 1, 1}, {2, 3, 5},    {3, 7, 16}, {1, 5, 17}, {2, 77, 32},
          {5, 40},   {1, 2, 1280}, {0, 4, 8},  {2, 0, 8},  {33, 1, 24}};
}
Shape twice(Shape y) {
  y.set(y.rank() - 1, 2 * y[y.rank() - 1]);
  return y;
}

const bool cases = add_kernel_cases([] {
  std::vector<KernelCase> all;
  for (const Shape& shape : shapes()) {
    const TensorSpec y = f32(shape), x = f32(twice(shape));
    KernelCase c{.op = "geglu", .label = shape.text(), .params = NoParams{}, .in = {x}, .out = {y}};
    c.batch_in = {0}, c.batch_out = {0}, c.tolerance = 2e-6;
    c.fill = [](std::vector<Buffer>& in, std::mt19937& random) {
      for (const Buffer& b : in) fill_uniform(b, random, -4, 4);
    };
    all.push_back(c);
    c.op = "geglu_grad", c.in = {x, y}, c.out = {x};
    c.batch_in = {0, 1}, c.gradient_in = {1}, c.gradient_out = {0};
    all.push_back(c);
  }
  return all;
});

const bool gradients = add_gradient_cases([] {
  const Shape shape{2, 3, 5};
  const TensorSpec y = f32(shape), x = f32(twice(shape));
  GradientCase c{.label = "geglu", .ops = {"geglu", "geglu_grad"}};
  std::mt19937 random(8);
  c.inputs.emplace_back(x);
  fill_uniform(c.inputs[0], random, -3, 3);
  c.loss = [=](const std::vector<Buffer>& in) {
    return weighted_sum(run_reference("geglu", NoParams{}, in, {y}), 4);
  };
  c.gradient = [=](const std::vector<Buffer>& in) {
    return run_reference("geglu_grad", NoParams{}, {in[0], weighted_sum_gradient({y}, 4)[0]}, {x});
  };
  return std::vector<GradientCase>{c};
});

// Worked out by hand: values 2 and 3, gates 0 and 1.
TEST(Geglu, TheSecondHalfGatesTheFirst) {
  const Buffer x(f32({1, 1, 4}));
  const float numbers[] = {2, 3, 0, 1};
  std::copy_n(numbers, 4, x.as<float>());
  const auto y = run_reference("geglu", NoParams{}, {x}, {f32({1, 1, 2})})[0];
  EXPECT_EQ(y.as<float>()[0], 0);
  EXPECT_NEAR(y.as<float>()[1], 3 * 0.84134475f, 1e-6);
}

}  // namespace
}  // namespace lockstep::testing::geglu_test
