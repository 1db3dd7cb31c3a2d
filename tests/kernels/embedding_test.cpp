// SPDX-License-Identifier: Apache-2.0
// Tolerances: rows are copied (0); a row's gradient adds at most 64 floats: 1e-6 of the largest. Sines of the
// same float angle differ by the functions' own error, below 2e-7.
#include "kernels/embedding/embedding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/timestep_embedding/timestep_embedding.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing::embedding_test {
namespace {

TensorSpec i32(Shape s) { return {DType::i32, s, Layout::plain}; }

struct Sizes {
  int64_t rows, width, samples, tokens = 0;  // 0: ids [N]
  Shape ids() const { return tokens ? Shape{samples, tokens} : Shape{samples}; }
  Shape y() const { return tokens ? Shape{samples, tokens, width} : Shape{samples, width}; }
};

std::vector<KernelCase> embedding_cases() {
  std::vector<KernelCase> all;
  for (const Sizes& sizes : {Sizes{1, 1, 1},
                             {3, 7, 17},
                             {11, 64, 16},
                             {5, 130, 64},
                             {131, 24, 3},
                             {4, 8, 0},
                             {9, 12, 3, 7},
                             {40, 130, 2, 33},
                             {3, 5, 2, 1},
                             {3, 5, 0, 4}}) {
    const auto [rows, width, samples, tokens] = sizes;
    // Every third number is outside, by far or just.
    const auto ids = [rows = rows](const Buffer& b, std::mt19937& random) {
      const int32_t outside[] = {-1, static_cast<int32_t>(rows), 1 << 30, -(1 << 30)};
      for (int64_t n = 0; n < b.spec().shape.elements(); ++n)
        b.as<int32_t>()[n] =
            n % 3 == 2 ? outside[random() % 4] : static_cast<int32_t>(random() % unsigned(rows));
    };
    const std::string label = fmt::format("{} of [{}, {}]", sizes.ids().text(), rows, width);
    KernelCase c{.op = "embedding", .label = label, .params = NoParams{}};
    c.in = {f32({rows, width}), i32(sizes.ids())}, c.out = {f32(sizes.y())};
    c.batch_out = {0}, c.tolerance = 0;
    c.fill = [ids](std::vector<Buffer>& in, std::mt19937& random) {
      fill_uniform(in[0], random);
      ids(in[1], random);
    };
    all.push_back(c);
    c.label += ", table in bf16 too";
    c.bf16_in = {0};
    all.push_back(c);

    KernelCase d{.op = "embedding_grad", .label = label, .params = NoParams{}};
    d.in = {i32(sizes.ids()), f32(sizes.y())}, d.out = {f32({rows, width})};
    d.batch_in = d.gradient_in = {1}, d.tolerance = 1e-6;
    d.fill = [ids](std::vector<Buffer>& in, std::mt19937& random) {
      ids(in[0], random);
      fill_uniform(in[1], random);
    };
    all.push_back(d);
  }
  return all;
}
std::vector<KernelCase> position_cases() {
  std::vector<KernelCase> all;
  struct Position {
    Shape x;
    int64_t rows;
  };
  for (const auto& [shape, rows] :
       {Position{{1, 1, 1}, 1}, {{3, 7, 5}, 7}, {{17, 4, 16}, 9}, {{2, 77, 40}, 77}, {{0, 3, 4}, 5}}) {
    const TensorSpec x = f32(shape), table = f32({rows, shape[2]});
    KernelCase c{.op = "position_embedding", .label = x.shape.text(), .params = NoParams{}};
    c.in = {x, table}, c.out = {x}, c.batch_in = {0}, c.batch_out = {0}, c.in_place = {{0, 0}};
    c.tolerance = 1e-7;  // one sum
    all.push_back(c);
    c.op = "position_embedding_grad";
    c.in = {x}, c.out = {table}, c.batch_in = c.gradient_in = {0}, c.batch_out = {}, c.in_place = {};
    c.tolerance = 1e-6;
    all.push_back(c);
  }
  return all;
}
const bool added_positions = add_kernel_cases(position_cases);
const bool added_embedding = add_kernel_cases(embedding_cases);

const bool added_gradients = add_gradient_cases([] {
  const TensorSpec table = f32({4, 3}), y = f32({5, 3});
  const Buffer ids(i32({5}));
  for (int n = 0; n < 5; ++n) ids.as<int32_t>()[n] = n * n % 4;  // 0, 1, 0, 1, 0
  GradientCase c{.label = "embedding", .ops = {"embedding", "embedding_grad"}};
  std::mt19937 random(1);
  c.inputs.emplace_back(table);
  fill_uniform(c.inputs[0], random);
  c.loss = [=](const std::vector<Buffer>& in) {
    return weighted_sum(run_reference("embedding", NoParams{}, {in[0], ids}, {y}), 3);
  };
  c.gradient = [=](const std::vector<Buffer>&) {
    return run_reference("embedding_grad", NoParams{}, {ids, weighted_sum_gradient({y}, 3)[0]}, {table});
  };
  GradientCase p{.label = "position_embedding", .ops = {"position_embedding", "position_embedding_grad"}};
  const TensorSpec x = f32({2, 3, 4}), places = f32({5, 4});
  for (const TensorSpec& s : {x, places}) {
    p.inputs.emplace_back(s);
    fill_uniform(p.inputs.back(), random);
  }
  p.loss = [=](const std::vector<Buffer>& in) {
    return weighted_sum(run_reference("position_embedding", NoParams{}, in, {x}), 3);
  };
  p.gradient = [=](const std::vector<Buffer>&) {
    const Buffer dy = weighted_sum_gradient({x}, 3)[0];
    return std::vector<Buffer>{dy, run_reference("position_embedding_grad", NoParams{}, {dy}, {places})[0]};
  };
  return std::vector<GradientCase>{c, p};
});

const bool no_timestep_gradient =
    declare_no_gradient("timestep_embedding", "nothing flows back into a number of a step");

std::vector<KernelCase> timestep_cases() {
  std::vector<KernelCase> all;
  for (const auto& [label, p] : std::vector<std::pair<std::string, TimestepEmbeddingParams>>{
           {"cosines last", {.dim = 32}},
           {"cosines first, no shift", {.dim = 128, .flip_sin_to_cos = true, .freq_shift = 0}},
           {"odd", {.dim = 7, .freq_shift = 0}},
           {"scaled, short period", {.dim = 10, .flip_sin_to_cos = true, .scale = 0.25, .max_period = 100}}})
    for (bool whole : {true, false}) {
      KernelCase c{.op = "timestep_embedding", .label = label + (whole ? "" : ", fractions"), .params = p};
      c.in = {whole ? i32({19}) : f32({19})}, c.out = {f32({19, p.dim})};
      c.batch_out = {0}, c.tolerance = 2e-7;
      c.fill = [whole](std::vector<Buffer>& in, std::mt19937& random) {
        for (int64_t n = 0; n < 19; ++n)
          if (whole)
            in[0].as<int32_t>()[n] = n == 0 ? 0 : n == 1 ? 999 : static_cast<int32_t>(random() % 1000);
          else
            in[0].as<float>()[n] = static_cast<float>(random() % 4000) / 4;
      };
      all.push_back(c);
    }
  return all;
}
const bool added_timesteps = add_kernel_cases(timestep_cases);

// diffusers' get_timestep_embedding (0.42.1) of timesteps 0, 1, 500, 999, as
// tests/golden/make_timestep_embedding.py prints it. Both round frequencies and angles to float; exp may
// differ in the last bit, which at an angle of 999 is 6e-5 of a sine.
TEST(TimestepEmbedding, IsThatOfDiffusers) {
  struct Expected {
    TimestepEmbeddingParams p;
    std::vector<float> y;
  };
  const std::vector<Expected> all = {
#include "tests/golden/timestep_embedding.inc"
  };
  const Buffer t(i32({4}));
  const int32_t steps[] = {0, 1, 500, 999};
  std::copy(steps, steps + 4, t.as<int32_t>());
  for (const auto& [p, expected] : all) {
    const auto y = run_reference("timestep_embedding", p, {t}, {f32({4, p.dim})})[0];
    ASSERT_EQ(expected.size(), static_cast<size_t>(4 * p.dim));
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_NEAR(y.as<float>()[i], expected[i], 7e-5) << p.text() << " [" << i << "]";
  }
}

}  // namespace
}  // namespace lockstep::testing::embedding_test
