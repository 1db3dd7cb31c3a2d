// SPDX-License-Identifier: Apache-2.0
// Tolerances: a maximum is copied, so every bit must fit (0). An average of at most 100 floats, added in
// float by the fast kernels, is off by at most 100 roundings of 6e-8 of the sum of magnitudes: 3e-6 of the
// largest covers the random inputs here. Gradients add at most 9 overlapping windows: 1e-6.
#include "kernels/pool2d/pool2d.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/support/kernel_cases.h"

namespace lockstep::testing::pool2d_test {
namespace {

constexpr double kAverage = 3e-6, kGradient = 1e-6;

struct Setting {
  std::string label;
  Pool2dParams p;
  int64_t channels, height, width;
};

Pool2dParams window(int64_t kernel, int64_t stride, int64_t pad = 0, int64_t dilation = 1,
                    bool ceil = false) {
  return {.kernel_h = kernel,
          .kernel_w = kernel,
          .stride_h = stride,
          .stride_w = stride,
          .pad_h = pad,
          .pad_w = pad,
          .dilation_h = dilation,
          .dilation_w = dilation,
          .ceil_mode = ceil};
}

Pool2dParams adaptive(int64_t h, int64_t w) { return {.adaptive = true, .adaptive_h = h, .adaptive_w = w}; }

Pool2dParams uneven() {
  return {.kernel_h = 3, .kernel_w = 2, .stride_h = 1, .stride_w = 3, .pad_h = 1, .ceil_mode = true};
}

std::vector<Setting> shared_settings() {
  return {{"mnist 1", window(2, 2), 3, 24, 24},
          {"mnist 2", window(2, 2), 20, 8, 8},
          {"odd size leaves a rim", window(2, 2), 2, 7, 9},
          {"ceil cuts windows off", window(2, 2, 0, 1, true), 2, 7, 9},
          {"ceil drops a window in the padding", window(2, 3, 1, 1, true), 2, 6, 6},
          {"overlapping", window(3, 2, 1), 5, 11, 10},
          {"stride 1", window(3, 1, 1), 1, 6, 19},
          {"3x3 edge to edge", window(3, 3), 4, 10, 13},
          {"gaps between windows", window(2, 3), 3, 11, 11},
          {"window is the image", window(7, 1), 6, 7, 7},
          {"1x1", window(1, 1), 17, 3, 5},
          {"uneven", uneven(), 3, 8, 12},
          {"16 bytes of channels", window(3, 2, 1), 16, 9, 8},
          {"ceil with padding", window(3, 2, 1, 1, true), 2, 8, 9}};
}

std::vector<Setting> max_settings() {
  auto all = shared_settings();
  std::vector<Setting> with_relu;
  all.push_back({"dilated", window(3, 2, 1, 2), 3, 13, 12});
  all.push_back({"dilated, ceil", window(2, 2, 1, 3, true), 2, 9, 10});
  all.push_back({"wholly in the padding", window(2, 2, 1, 3), 2, 2, 3});
  all.push_back({"256 positions", window(16, 4), 1, 21, 20});
  for (auto& s : all)
    if (s.p.kernel_h * s.p.kernel_w < 256) with_relu.push_back(s);
  for (auto& s : with_relu) s.label += ", relu", s.p.activation = Activation::relu;
  all.insert(all.end(), with_relu.begin(), with_relu.end());
  return all;
}

std::vector<Setting> avg_settings() {
  auto all = shared_settings();
  for (auto& s : shared_settings()) {
    if (s.p.pad_h == 0 && !s.p.ceil_mode) continue;
    s.p.count_include_pad = false;
    s.label += ", padding not counted";
    all.push_back(s);
  }
  all.push_back({"adaptive 7 to 3", adaptive(3, 3), 3, 7, 7});
  all.push_back({"adaptive, divisible", adaptive(4, 2), 18, 8, 8});
  all.push_back({"adaptive to 1", adaptive(1, 1), 16, 7, 5});
  all.push_back({"adaptive up", adaptive(5, 4), 2, 3, 2});
  return all;
}

Shape pooled(const Pool2dParams& p, const Shape& x) { return {x[0], x[1], p.out_h(x[2]), p.out_w(x[3])}; }
TensorSpec bytes(Shape s) { return {DType::u8, s, Layout::plain}; }

// Few different values, so that ties are common, and now and then a NaN or an infinity.
void fill_with_ties(const Buffer& x, std::mt19937& random) {
  for (int64_t i = 0; i < x.spec().stored_elements(); ++i) {
    const auto pick = random() % 64;
    x.as<float>()[i] = pick == 0   ? std::numeric_limits<float>::quiet_NaN()
                       : pick == 1 ? -std::numeric_limits<float>::infinity()
                                   : static_cast<float>(pick % 5) - 2;
  }
}

KernelCase max_case(const std::string& label, const Pool2dParams& p, const Shape& x, bool ties) {
  KernelCase c{.op = "max_pool2d", .label = label, .params = p, .in = {f32(x)}};
  c.out = {f32(pooled(p, x)), bytes(pooled(p, x))};
  c.batch_in = {0}, c.batch_out = {0, 1};
  c.tolerance = 0;
  if (ties) c.fill = [](std::vector<Buffer>& in, std::mt19937& random) { fill_with_ties(in[0], random); };
  return c;
}

KernelCase max_grad_case(const std::string& label, const Pool2dParams& p, const Shape& x) {
  const Shape y = pooled(p, x);
  KernelCase c{
      .op = "max_pool2d_grad", .label = label, .params = p, .in = {f32(y), bytes(y)}, .out = {f32(x)}};
  c.batch_in = {0, 1}, c.batch_out = {0}, c.gradient_in = {0}, c.gradient_out = {0};
  c.tolerance = kGradient;
  c.fill = [p, x, y](std::vector<Buffer>& in, std::mt19937& random) {
    const Buffer image(f32(x));
    fill_uniform(image, random);
    fill_uniform(in[0], random);
    in[1] = run_reference("max_pool2d", p, {image}, {f32(y), bytes(y)})[1];
  };
  return c;
}

KernelCase avg_case(const std::string& label, const Pool2dParams& p, const Shape& x) {
  KernelCase c{.op = "avg_pool2d", .label = label, .params = p, .in = {f32(x)}, .out = {f32(pooled(p, x))}};
  c.batch_in = {0}, c.batch_out = {0}, c.tolerance = kAverage;
  return c;
}

KernelCase avg_grad_case(const std::string& label, const Pool2dParams& p, const Shape& x) {
  KernelCase c{
      .op = "avg_pool2d_grad", .label = label, .params = p, .in = {f32(pooled(p, x))}, .out = {f32(x)}};
  c.batch_in = {0}, c.batch_out = {0}, c.gradient_in = {0}, c.gradient_out = {0}, c.tolerance = kGradient;
  return c;
}

std::vector<KernelCase> cases() {
  std::vector<KernelCase> all;
  const int64_t batches[] = {1, 15, 16, 17, 33, 0};
  size_t turn = 0, avg_turn = 0;
  for (const auto& s : max_settings()) {
    const Shape x = {batches[turn++ % 6], s.channels, s.height, s.width};
    all.push_back(max_case(s.label, s.p, {3, s.channels, s.height, s.width}, false));
    all.push_back(max_case(s.label + ", ties and NaN", s.p, x, true));
    all.push_back(max_grad_case(s.label, s.p, x));
  }
  for (const auto& s : avg_settings()) {
    const Shape x = {batches[avg_turn++ % 6], s.channels, s.height, s.width};
    all.push_back(avg_case(s.label, s.p, x));
    all.push_back(avg_grad_case(s.label, s.p, x));
  }
  // Enough for three threads to have a range each.
  all.push_back(max_case("large", window(2, 2), {33, 10, 24, 24}, false));
  all.push_back(max_grad_case("large", window(2, 2), {33, 10, 24, 24}));
  all.push_back(avg_case("large", window(3, 2, 1), {17, 10, 24, 24}));
  all.push_back(avg_grad_case("large", window(3, 2, 1), {17, 10, 24, 24}));
  return all;
}
const bool added_cases = add_kernel_cases(cases);

// Values at least 0.1 apart in random order, half of them below zero: a step of 1e-2 moves no maximum, and none over zero.
Buffer spread(const Shape& shape) {
  const Buffer b(f32(shape));
  const auto n = static_cast<size_t>(shape.elements());
  const size_t half = n / 2;
  for (size_t i = 0; i < n; ++i)
    b.as<float>()[i] = 0.1f * (static_cast<float>(i) - static_cast<float>(half) + 0.5f);
  std::mt19937 random(5);
  for (size_t i = n; i > 1; --i) std::swap(b.as<float>()[i - 1], b.as<float>()[random() % i]);
  return b;
}

GradientCase max_gradient(const Setting& s) {
  const Shape x = {2, s.channels, s.height, s.width}, y = pooled(s.p, x);
  const auto forward = [p = s.p, y](const std::vector<Buffer>& in) {
    return run_reference("max_pool2d", p, in, {f32(y), bytes(y)});
  };
  return {.label = "max_pool2d " + s.label,
          .ops = {"max_pool2d", "max_pool2d_grad"},
          .inputs = {spread(x)},
          .loss = [forward](const std::vector<Buffer>& in) { return weighted_sum({forward(in)[0]}, 3); },
          .gradient =
              [=, p = s.p](const std::vector<Buffer>& in) {
                const Buffer dy = weighted_sum_gradient({f32(y)}, 3)[0];
                return run_reference("max_pool2d_grad", p, {dy, forward(in)[1]}, {f32(x)});
              }};
}

GradientCase avg_gradient(const Setting& s) {
  const Shape x = {2, s.channels, s.height, s.width}, y = pooled(s.p, x);
  const Buffer input(f32(x));
  std::mt19937 random(5);
  fill_uniform(input, random);
  return {.label = "avg_pool2d " + s.label,
          .ops = {"avg_pool2d", "avg_pool2d_grad"},
          .inputs = {input},
          .loss =
              [p = s.p, y](const std::vector<Buffer>& in) {
                return weighted_sum(run_reference("avg_pool2d", p, in, {f32(y)}), 3);
              },
          .gradient =
              [=, p = s.p](const std::vector<Buffer>&) {
                return run_reference("avg_pool2d_grad", p, weighted_sum_gradient({f32(y)}, 3), {f32(x)});
              }};
}

std::vector<GradientCase> gradients() {
  std::vector<GradientCase> all;
  // Without the window in the padding, whose maximum is -inf, and the one too large to stay quick.
  for (const auto& s : max_settings())
    if (!s.label.starts_with("wholly in the padding") && s.label != "mnist 1") all.push_back(max_gradient(s));
  for (const auto& s : avg_settings())
    if (s.label != "mnist 1") all.push_back(avg_gradient(s));
  return all;
}
const bool added_gradients = add_gradient_cases(gradients);

Buffer image(const Shape& s, std::vector<float> values) {
  const Buffer b(f32(s));
  std::copy(values.begin(), values.end(), b.as<float>());
  return b;
}

std::vector<float> floats(const Buffer& b) {
  return {b.as<float>(), b.as<float>() + b.spec().stored_elements()};
}

// The reference against numbers worked out by hand: it is what all else is compared with.
TEST(Pool2d, ReluLeavesNoMaximumWhereNoneIsAboveZero) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Buffer x = image({1, 1, 2, 8}, {-1, 3, -2, -2, -0.0f, 0, nan, -1,  //
                                        -3, 0, -2, -2, -5, 0, -1, -1});
  Pool2dParams p = window(2, 2);
  p.activation = Activation::relu;
  const auto out = run_reference("max_pool2d", p, {x}, {f32({1, 1, 1, 4}), bytes({1, 1, 1, 4})});
  const auto y = floats(out[0]);
  EXPECT_EQ(std::vector<float>(y.begin(), y.begin() + 3), (std::vector<float>{3, 0, 0}));
  EXPECT_TRUE(std::isnan(y[3]));
  const auto* index = out[1].as<uint8_t>();
  const int none = Pool2dParams::kNoMaximum;
  EXPECT_EQ(std::vector<int>(index, index + 4), (std::vector<int>{1, none, none, 0}));
  const Buffer dy = image({1, 1, 1, 4}, {1, 2, 3, 4});
  EXPECT_EQ(floats(run_reference("max_pool2d_grad", p, {dy, out[1]}, {f32({1, 1, 2, 8})})[0]),
            (std::vector<float>{0, 1, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
}

TEST(Pool2d, MaximumTakesTheFirstOfEqualsAndNaNIsLargest) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Buffer x = image({1, 1, 2, 6}, {1, 3, 2, 2, nan, 9,  //
                                        3, 0, 2, 2, 9, nan});
  const auto out = run_reference("max_pool2d", window(2, 2), {x}, {f32({1, 1, 1, 3}), bytes({1, 1, 1, 3})});
  EXPECT_EQ(out[0].as<float>()[0], 3);
  EXPECT_EQ(out[0].as<float>()[1], 2);
  EXPECT_TRUE(std::isnan(out[0].as<float>()[2]));
  EXPECT_EQ(out[1].as<uint8_t>()[0], 1);
  EXPECT_EQ(out[1].as<uint8_t>()[1], 0);
  EXPECT_EQ(out[1].as<uint8_t>()[2], 0);
}

TEST(Pool2d, PaddingNeverWinsAMaximum) {
  const Buffer x = image({1, 1, 2, 2}, {-4, -3, -2, -1});
  const auto out =
      run_reference("max_pool2d", window(2, 2, 1), {x}, {f32({1, 1, 2, 2}), bytes({1, 1, 2, 2})});
  EXPECT_EQ(floats(out[0]), (std::vector<float>{-4, -3, -2, -1}));
  EXPECT_EQ(out[1].as<uint8_t>()[0], 3);  // of the first window only the lower right position is in the image
  EXPECT_EQ(out[1].as<uint8_t>()[3], 0);
}

TEST(Pool2d, DilatedMaximum) {
  const Buffer x = image({1, 1, 3, 3}, {1, 9, 2, 9, 9, 9, 4, 9, 3});
  const auto out =
      run_reference("max_pool2d", window(2, 1, 0, 2), {x}, {f32({1, 1, 1, 1}), bytes({1, 1, 1, 1})});
  EXPECT_EQ(out[0].as<float>()[0], 4);
  EXPECT_EQ(out[1].as<uint8_t>()[0], 2);
}

TEST(Pool2d, DivisorCountsPaddingOrNot) {
  const Buffer x = image({1, 1, 2, 2}, {4, 8, 12, 16});
  Pool2dParams p = window(2, 2, 1);
  EXPECT_EQ(floats(run_reference("avg_pool2d", p, {x}, {f32({1, 1, 2, 2})})[0]),
            (std::vector<float>{1, 2, 3, 4}));
  p.count_include_pad = false;
  EXPECT_EQ(floats(run_reference("avg_pool2d", p, {x}, {f32({1, 1, 2, 2})})[0]),
            (std::vector<float>{4, 8, 12, 16}));
}

// A window that ceil_mode lets hang over the padded image counts only what is inside that.
TEST(Pool2d, CeilModeDivisorStopsAtThePaddedImage) {
  const Buffer x = image({1, 1, 1, 3}, {6, 10, 20});
  const Pool2dParams p{.kernel_h = 1, .kernel_w = 2, .stride_h = 1, .stride_w = 2, .ceil_mode = true};
  ASSERT_EQ(p.out_w(3), 2);
  EXPECT_EQ(floats(run_reference("avg_pool2d", p, {x}, {f32({1, 1, 1, 2})})[0]), (std::vector<float>{8, 20}));
}

TEST(Pool2d, AdaptiveWindowsOverlap) {
  const Buffer x = image({1, 1, 1, 7}, {0, 1, 2, 3, 4, 5, 6});
  // [0, 3), [2, 5), [4, 7)
  EXPECT_EQ(floats(run_reference("avg_pool2d", adaptive(1, 3), {x}, {f32({1, 1, 1, 3})})[0]),
            (std::vector<float>{1, 3, 5}));
}

TEST(Pool2d, OverlappingWindowsAddUpInTheGradient) {
  const Buffer x = image({1, 1, 1, 3}, {1, 5, 2}), dy = image({1, 1, 1, 2}, {10, 100});
  const Pool2dParams p{.kernel_w = 2};
  const auto y = run_reference("max_pool2d", p, {x}, {f32({1, 1, 1, 2}), bytes({1, 1, 1, 2})});
  EXPECT_EQ(floats(run_reference("max_pool2d_grad", p, {dy, y[1]}, {f32({1, 1, 1, 3})})[0]),
            (std::vector<float>{0, 110, 0}));
  EXPECT_EQ(floats(run_reference("avg_pool2d_grad", p, {dy}, {f32({1, 1, 1, 3})})[0]),
            (std::vector<float>{5, 55, 50}));
}

}  // namespace
}  // namespace lockstep::testing::pool2d_test
