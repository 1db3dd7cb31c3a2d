// SPDX-License-Identifier: Apache-2.0
#include "kernels/layer_norm/layer_norm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/core/cpu_target.h"
#include "tests/support/combinations.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing::layer_norm_test {
namespace {

Shape stats_of(Shape x) {
  x.set(x.rank() - 1, 2);
  return x;
}

// One number a row, widths below, at and above a vector; rows of several pieces; no row, no sample.
std::vector<Shape> shapes() {
  return {{1, 1, 1},    {2, 3, 5},   {3, 7, 16},   {1, 5, 17},    {2, 77, 32},
          {2, 130, 24}, {5, 40},     {1, 3, 1280}, {1, 2, 4095},  {0, 4, 8},
          {2, 0, 8},    {1, 129, 1}, {17, 2, 33},  {2, 2, 3, 12}, {1, 64, 320}};
}

std::vector<KernelCase> kernel_cases() {
  std::vector<KernelCase> all;
  for (const Shape& shape : shapes()) {
    const TensorSpec x = f32(shape), v = f32({shape[shape.rank() - 1]}), stats = f32(stats_of(shape));
    KernelCase c;
    c.op = "layer_norm";
    c.label = shape.text();
    c.params = LayerNormParams{};
    c.in = {x, v, v}, c.out = {x, stats};
    c.batch_in = {0}, c.batch_out = {0, 1};
    c.in_place = {{0, 0}};
    c.tolerance = 4e-6;            // 16 f32 sums of up to 256 terms; a mean of numbers that cancel is near 0
    c.bf16_in = c.bf16_out = {0};  // statistics stay f32
    c.fill = [](std::vector<Buffer>& in, std::mt19937& random) {
      for (const Buffer& b : in) fill_uniform(b, random);
    };
    all.push_back(c);
    c.op = "layer_norm_grad";
    c.in = {x, x, v, stats}, c.out = {x, v, v};
    c.batch_in = {0, 1, 3}, c.gradient_in = {1}, c.batch_out = c.gradient_out = {0};
    c.in_place = {{1, 0}};
    c.bf16_in = {0, 1};
    c.fill = [](std::vector<Buffer>& in, std::mt19937& random) {
      for (const Buffer& b : in) fill_uniform(b, random);
      for (int64_t i = 1; i < in[3].spec().stored_elements(); i += 2) in[3].as<float>()[i] += 1.5f;
    };
    all.push_back(c);
  }
  return all;
}
const bool cases = add_kernel_cases(kernel_cases);

const bool gradients = add_gradient_cases([] {
  std::vector<GradientCase> all;
  for (const Shape& shape : {Shape{2, 3, 7}, Shape{3, 5}}) {
    const TensorSpec x = f32(shape), v = f32({shape[shape.rank() - 1]}), stats = f32(stats_of(shape));
    const LayerNormParams params{.eps = 1e-5f};
    std::mt19937 random(8);
    GradientCase c;
    c.label = "layer_norm " + shape.text();
    c.ops = {"layer_norm", "layer_norm_grad"};
    for (const auto& s : {x, v, v}) {
      c.inputs.emplace_back(s);
      fill_uniform(c.inputs.back(), random);
    }
    c.loss = [=](const std::vector<Buffer>& in) {
      return weighted_sum({run_reference("layer_norm", params, in, {x, stats})[0]}, 4);
    };
    c.gradient = [=](const std::vector<Buffer>& in) {
      const auto out = run_reference("layer_norm", params, in, {x, stats});
      const Buffer dy = weighted_sum_gradient({x}, 4)[0];
      return run_reference("layer_norm_grad", params, {in[0], dy, in[1], out[1]}, {x, v, v});
    };
    all.push_back(c);
  }
  return all;
});

// Worked out by hand: what the reference, and so all else, is held to.
TEST(LayerNorm, IsOverTheLastDimension) {
  const Buffer x(f32({1, 2, 2})), gamma(f32({2})), beta(f32({2}));
  for (int i = 0; i < 4; ++i) x.as<float>()[i] = static_cast<float>(i < 2 ? i : 10 * i);  // 0 1, 20 30
  gamma.as<float>()[0] = 2, gamma.as<float>()[1] = 3, beta.as<float>()[0] = 0.5f, beta.as<float>()[1] = -0.5f;
  const auto out = run_reference("layer_norm", LayerNormParams{.eps = 0}, {x, gamma, beta},
                                 {f32({1, 2, 2}), f32({1, 2, 2})});
  const float y[] = {-1.5f, 2.5f, -1.5f, 2.5f}, stats[] = {0.5f, 2, 25, 0.2f};
  for (int i = 0; i < 4; ++i) {
    EXPECT_FLOAT_EQ(out[0].as<float>()[i], y[i]) << i;
    EXPECT_FLOAT_EQ(out[1].as<float>()[i], stats[i]) << i;
  }
}

// 1000^2 has an ulp of 0.06 in f32; the variance is about 1e-4.
TEST(LayerNorm, SmallVarianceAroundALargeMean) {
  const Shape s{2, 3, 1283};
  std::mt19937 random(9);
  const Buffer x(f32(s)), v(f32({1283}));
  fill_uniform(x, random, 999.98f, 1000.02f), fill_uniform(v, random);
  for (Device device : {Device::cpu, Device::simt}) {
    const auto out = run_kernel("layer_norm", "rows", LayerNormParams{.eps = 0}, {x, v, v},
                                {f32(s), f32(stats_of(s))}, 1, device);
    for (int64_t row = 0; row < 6; ++row) {
      double mean = 0, m2 = 0;
      for (int64_t i = 0; i < 1283; ++i) mean += double{x.as<float>()[row * 1283 + i]} / 1283;
      for (int64_t i = 0; i < 1283; ++i) m2 += std::pow(double{x.as<float>()[row * 1283 + i]} - mean, 2);
      // Sums of 41 (a lane's) to 81 numbers near 1000, rounded at 4e-3 each: a mean to 1e-7 of it.
      EXPECT_NEAR(out[1].as<float>()[2 * row], mean, 2e-4);
      const double invstd = std::sqrt(1283 / m2);
      EXPECT_NEAR(out[1].as<float>()[2 * row + 1], invstd, 2e-6 * invstd);  // a few ulps
    }
  }
}

TEST(LayerNorm, BitsDependNeitherOnThreadsNorOnTheInstructionSet) {
  std::mt19937 random(4);
  const Shape s{3, 133, 61};
  const Buffer x(f32(s)), dy(f32(s)), v(f32({61}));
  fill_uniform(x, random), fill_uniform(dy, random), fill_uniform(v, random);
  const int64_t initial = cpu_target();
  std::vector<float> first;
  for (int64_t target : targets_to_test())
    for (int threads : thread_counts()) {
      set_cpu_target(target);
      const auto y =
          run_kernel("layer_norm", "rows", LayerNormParams{}, {x, v, v}, {f32(s), f32(stats_of(s))}, threads);
      const auto d = run_kernel("layer_norm_grad", "rows", LayerNormParams{}, {x, dy, v, y[1]},
                                {f32(s), v.spec(), v.spec()}, threads);
      std::vector<float> bits;
      for (const auto& b : {y[0], y[1], d[0], d[1], d[2]})
        bits.insert(bits.end(), b.as<float>(), b.as<float>() + b.spec().stored_elements());
      if (first.empty()) first = bits;
      EXPECT_EQ(bits, first) << threads << " threads " << cpu_target_name(target);
    }
  set_cpu_target(initial);
}

}  // namespace
}  // namespace lockstep::testing::layer_norm_test
