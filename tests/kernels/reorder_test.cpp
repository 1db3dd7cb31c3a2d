// SPDX-License-Identifier: Apache-2.0
// A reorder copies: every bit must fit, so tolerances are 0.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/core/cpu_target.h"
#include "tests/support/combinations.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing::reorder_test {
namespace {

const bool no_gradient_needed = declare_no_gradient("reorder", "a copy; its gradient is a reorder back");

const Shape kShapes[] = {{1, 1, 1, 1},   {1, 3, 5, 7},  {15, 10, 4, 4}, {16, 20, 3, 3},  {17, 4, 8, 1},
                         {33, 17, 2, 9}, {5, 33, 6, 6}, {0, 3, 4, 4},   {48, 2, 28, 28}, {2, 3, 40, 41}};

// With x in each layout and y plain, x plain and y in each layout, and both in the same.
std::vector<KernelCase> cases() {
  std::vector<KernelCase> all;
  auto shapes = std::vector<Shape>(std::begin(kShapes), std::end(kShapes));
  shapes.insert(shapes.end(), {{1, 7}, {43, 320}, {16, 50}, {20, 3, 3}});
  for (const auto& shape : shapes)
    for (int which : {1, 2, 3}) {
      KernelCase c{.op = "reorder",
                   .label = shape.text(),
                   .params = NoParams{},
                   .in = {f32(shape)},
                   .out = {f32(shape)}};
      if (which & 1) c.batch_in = {0};
      if (which & 2) c.batch_out = {0};
      c.tolerance = 0;
      all.push_back(c);
    }
  return all;
}
const bool added = add_kernel_cases(cases);

// All pairs, those that the cases leave out too; padding lanes are zero afterwards, whatever was in x's.
TEST(Reorder, BetweenEveryPairOfLayouts) {
  const int64_t initial = cpu_target();
  for (const std::string kernel : {"reference", "highway"})
    for (int64_t target : targets_to_test())
      for (const auto& shape : kShapes)
        for (Layout from : {Layout::plain, Layout::nhwc, Layout::lanes})
          for (Layout to : {Layout::plain, Layout::nhwc, Layout::lanes}) {
            set_cpu_target(target);
            const Buffer plain(f32(shape));
            std::mt19937 random(1);
            fill_uniform(plain, random);
            const Buffer x = to_layout(plain, from, 7), expected = to_layout(plain, to, 0);
            const Buffer y = run_kernel("reorder", kernel, NoParams{}, {x}, {f32(shape, to)}, 2)[0];
            const auto bytes = static_cast<size_t>(y.spec().bytes());
            EXPECT_EQ(std::memcmp(y.data(), expected.data(), bytes), 0)
                << kernel << " " << cpu_target_name(target) << " " << x.spec().text() << " to "
                << y.spec().text();
          }
  set_cpu_target(initial);
}

}  // namespace
}  // namespace lockstep::testing::reorder_test
