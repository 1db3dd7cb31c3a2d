// SPDX-License-Identifier: Apache-2.0
// Tolerances: upsampling copies (0); its gradient adds at most 12 floats here: 1e-6 of the largest.
#include "kernels/resample/resample.h"

#include <gtest/gtest.h>

#include "tests/support/kernel_cases.h"

namespace lockstep::testing::resample_test {
namespace {

struct Setting {
  UpsampleNearest2dParams p;
  Shape x;
  Shape y() const { return {x[0], x[1], p.height, p.width}; }
};

// Whole vectors of channels and of pixels, and neither; other factors than 2, and none; no sample; enough for three
// threads.
std::vector<Setting> settings() {
  return {{{2, 2}, {1, 1, 1, 1}},   {{8, 10}, {17, 3, 4, 5}},   {{6, 32}, {2, 8, 3, 16}},
          {{4, 38}, {3, 5, 2, 19}}, {{8, 8}, {2, 24, 4, 4}},    {{3, 3}, {16, 2, 3, 3}},
          {{9, 8}, {5, 4, 3, 2}},   {{5, 14}, {2, 3, 5, 7}},    {{4, 3}, {15, 16, 2, 3}},
          {{4, 4}, {0, 3, 2, 2}},   {{17, 33}, {2, 3, 9, 17}},  {{13, 7}, {3, 16, 9, 5}},
          {{5, 11}, {17, 2, 3, 4}}, {{32, 32}, {4, 16, 16, 16}}};
}

std::vector<KernelCase> cases() {
  std::vector<KernelCase> all;
  for (const Setting& s : settings()) {
    KernelCase c{.op = "upsample_nearest2d",
                 .label = s.x.text(),
                 .params = s.p,
                 .in = {f32(s.x)},
                 .out = {f32(s.y())}};
    c.batch_in = {0}, c.batch_out = {0}, c.tolerance = 0, c.watched = s.x.elements() < 10'000;
    all.push_back(c);
    c.op = "upsample_nearest2d_grad";
    std::swap(c.in, c.out);
    c.gradient_in = {0}, c.gradient_out = {0}, c.tolerance = 1e-6;
    all.push_back(c);
  }
  return all;
}
const bool added_cases = add_kernel_cases(cases);

const bool added_gradients = add_gradient_cases([] {
  const UpsampleNearest2dParams p{7, 5};
  const TensorSpec x = f32({2, 3, 3, 2}), y = f32({2, 3, 7, 5});
  GradientCase c{.label = "upsample_nearest2d", .ops = {"upsample_nearest2d", "upsample_nearest2d_grad"}};
  std::mt19937 random(1);
  c.inputs.emplace_back(x);
  fill_uniform(c.inputs[0], random);
  c.loss = [=](const std::vector<Buffer>& in) {
    return weighted_sum(run_reference("upsample_nearest2d", p, in, {y}), 3);
  };
  c.gradient = [=](const std::vector<Buffer>&) {
    return run_reference("upsample_nearest2d_grad", p, weighted_sum_gradient({y}, 3), {x});
  };
  return std::vector<GradientCase>{c};
});

// The reference against numbers worked out by hand.
TEST(Resample, RepeatsPixels) {
  const Buffer x(f32({1, 1, 2, 2}));
  for (int i = 0; i < 4; ++i) x.as<float>()[i] = static_cast<float>(i);
  const auto y =
      run_reference("upsample_nearest2d", UpsampleNearest2dParams{2, 4}, {x}, {f32({1, 1, 2, 4})})[0];
  EXPECT_EQ(std::vector<float>(y.as<float>(), y.as<float>() + 8),
            (std::vector<float>{0, 0, 1, 1, 2, 2, 3, 3}));
}

// A skip of 5 pixels met by 3: floor(i * 3 / 5).
TEST(Resample, ToAnySize) {
  const Buffer x(f32({1, 1, 1, 3}));
  for (int i = 0; i < 3; ++i) x.as<float>()[i] = static_cast<float>(i);
  const auto y =
      run_reference("upsample_nearest2d", UpsampleNearest2dParams{1, 5}, {x}, {f32({1, 1, 1, 5})})[0];
  EXPECT_EQ(std::vector<float>(y.as<float>(), y.as<float>() + 5), (std::vector<float>{0, 0, 1, 1, 2}));
}

}  // namespace
}  // namespace lockstep::testing::resample_test
