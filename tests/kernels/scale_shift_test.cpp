// SPDX-License-Identifier: Apache-2.0
// Tolerances: y is two roundings off, 1.2e-7 of the largest; sums over at most 2,500 pixels are added in
// float in several runs, whose random rounding grows with the root of their length, as the sum itself does:
// 2e-6.
#include "kernels/scale_shift/scale_shift.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/core/cpu_target.h"
#include "tests/support/combinations.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing::scale_shift_test {
namespace {

constexpr double kElement = 3e-7, kSum = 2e-6;

// One pixel, odd sizes, whole vectors of pixels and of channels, several tiles of channels, features, no
// sample, enough for three threads.
const Shape kShapes[] = {{1, 1, 1, 1},  {2, 3, 5, 7},   {17, 4, 4, 4},  {3, 16, 3, 5},
                         {2, 70, 2, 3}, {2, 136, 2, 2}, {33, 12},       {5, 2, 9},
                         {0, 3, 2, 2},  {2, 8, 50, 50}, {3, 33, 20, 17}};

std::vector<KernelCase> cases() {
  std::vector<KernelCase> all;
  for (const Shape& shape : kShapes) {
    const TensorSpec x = f32(shape), v = f32({shape[0], shape[1]});
    KernelCase c{.op = "scale_shift", .label = shape.text() + " shift only", .params = NoParams{}};
    c.watched = shape.elements() < 5'000;
    c.in = {x, v}, c.out = {x}, c.batch_in = {0, 1}, c.batch_out = {0};
    c.tolerance = kElement, c.in_place = {{0, 0}};
    all.push_back(c);
    c.label = shape.text();
    c.in = {x, v, v}, c.batch_in = {0, 1, 2};
    all.push_back(c);

    KernelCase d{.op = "scale_shift_grad", .label = shape.text() + " shift only", .params = NoParams{}};
    d.watched = c.watched;
    d.in = {x}, d.out = {v}, d.batch_in = d.batch_out = d.gradient_in = d.gradient_out = {0};
    d.tolerance = kSum;
    all.push_back(d);
    d.label = shape.text();
    d.in = {x, x, v}, d.out = {v, x, v};
    d.batch_in = d.batch_out = d.gradient_out = {0, 1, 2};
    d.in_place = {{0, 1}};
    all.push_back(d);
  }
  return all;
}
const bool added_cases = add_kernel_cases(cases);

const bool added_gradients = add_gradient_cases([] {
  std::vector<GradientCase> all;
  const TensorSpec x = f32({3, 4, 2, 3}), v = f32({3, 4});
  for (bool scaled : {false, true}) {
    GradientCase c{.label = scaled ? "scale_shift" : "scale_shift, shift only",
                   .ops = {"scale_shift", "scale_shift_grad"}};
    std::mt19937 random(8);
    for (const auto& s : scaled ? std::vector{x, v, v} : std::vector{x, v}) {
      c.inputs.emplace_back(s);
      fill_uniform(c.inputs.back(), random);
    }
    c.loss = [=](const std::vector<Buffer>& in) {
      return weighted_sum(run_reference("scale_shift", NoParams{}, in, {x}), 4);
    };
    c.gradient = [=](const std::vector<Buffer>& in) -> std::vector<Buffer> {
      const Buffer dy = weighted_sum_gradient({x}, 4)[0];
      if (!scaled) return {dy, run_reference("scale_shift_grad", NoParams{}, {dy}, {v})[0]};
      const auto d = run_reference("scale_shift_grad", NoParams{}, {dy, in[0], in[1]}, {v, x, v});
      return {d[1], d[2], d[0]};
    };
    all.push_back(c);
  }
  return all;
});

TEST(ScaleShift, BitsDependNeitherOnThreadsNorOnTheInstructionSet) {
  const int64_t initial = cpu_target();
  std::mt19937 random(4);
  const Shape s{19, 37, 23, 13};
  Buffer x(f32(s)), dy(f32(s)), v(f32({19, 37}));
  fill_uniform(x, random), fill_uniform(dy, random), fill_uniform(v, random);
  for (Layout layout : {Layout::plain, Layout::nhwc, Layout::lanes}) {
    const TensorSpec like = f32(s, layout),
                     of = f32({19, 37}, layout == Layout::lanes ? layout : Layout::plain);
    const Buffer lv = to_layout(v, of.layout), lx = to_layout(x, layout), ldy = to_layout(dy, layout);
    std::vector<float> first;
    for (int64_t target : targets_to_test())
      for (int threads : thread_counts()) {
        set_cpu_target(target);
        auto out = run_kernel("scale_shift", "highway", NoParams{}, {lx, lv, lv}, {like}, threads);
        for (auto& b :
             run_kernel("scale_shift_grad", "highway", NoParams{}, {ldy, lx, lv}, {of, like, of}, threads))
          out.push_back(b);
        std::vector<float> bits;
        for (const auto& b : out)
          bits.insert(bits.end(), b.as<float>(), b.as<float>() + b.spec().stored_elements());
        if (first.empty()) first = bits;
        EXPECT_EQ(bits, first) << name(layout) << " " << threads << " threads " << cpu_target_name(target);
      }
  }
  set_cpu_target(initial);
}

}  // namespace
}  // namespace lockstep::testing::scale_shift_test
