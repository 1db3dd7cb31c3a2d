// SPDX-License-Identifier: Apache-2.0
// Tolerance: the fast kernels add C/groups*KH*KW products in float (weight gradients: N*P*Q of them, in two
// levels), 20 to 20,000 terms here. Random rounding grows with the root of their count, 6e-8 * sqrt(20,000) =
// 1e-5, against the largest output, which grows so too: 1e-5 with a margin for the biggest sums and for the
// vector activations (erf: 1.5e-7).
#include "kernels/conv2d/conv2d.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/kernel_cases.h"

namespace lockstep::testing::conv2d_test {
namespace {

constexpr double kTolerance = 1e-5;

struct Setting {
  std::string label;
  Conv2dParams p;
  Shape x, w;
  bool bias = true, watched = true;
  Shape y() const { return {x[0], w[0], p.out_h(x[2], w[2]), p.out_w(x[3], w[3])}; }
};

Conv2dParams conv(int64_t pad = 0, int64_t stride = 1, int64_t dilation = 1, int64_t groups = 1) {
  return {.stride_h = stride,
          .stride_w = stride,
          .pad_top = pad,
          .pad_left = pad,
          .pad_bottom = pad,
          .pad_right = pad,
          .dilation_h = dilation,
          .dilation_w = dilation,
          .groups = groups};
}

Conv2dParams pads(int64_t top, int64_t left, int64_t bottom, int64_t right) {
  return {.pad_top = top, .pad_left = left, .pad_bottom = bottom, .pad_right = right};
}

Conv2dParams uneven() {
  return {.stride_h = 3, .stride_w = 2, .pad_top = 2, .pad_right = 1, .dilation_h = 1, .dilation_w = 2};
}

// A UNet's downsampling without padding: a rim on two sides only.
Conv2dParams downsampling() { return {.stride_h = 2, .stride_w = 2, .pad_bottom = 1, .pad_right = 1}; }

std::vector<Setting> settings() {
  return {
      {"1x1", conv(), {17, 5, 6, 7}, {17, 5, 1, 1}},
      {"1x1, stride 2", conv(0, 2), {16, 16, 8, 8}, {5, 16, 1, 1}, false},
      {"3x3, same", conv(1), {15, 3, 9, 8}, {16, 3, 3, 3}},
      {"3x3, wide", conv(1), {33, 16, 7, 7}, {17, 16, 3, 3}, false, false},
      {"5x5, mnist 1", conv(), {17, 1, 28, 28}, {10, 1, 5, 5}, true, false},
      {"5x5, mnist 2", conv(), {17, 10, 12, 12}, {20, 10, 5, 5}, true, false},
      {"5x5, a piece of mnist 1", conv(), {1, 1, 12, 13}, {10, 1, 5, 5}},
      {"5x5, a piece of mnist 2", conv(), {2, 10, 6, 7}, {20, 10, 5, 5}},
      // What GPU tiles are about: channels that fill 16 bytes, sums long enough to go round the ring of
      // buffers (over channels, or over pixels for the weight gradient), several tiles.
      {"3x3, 40 to 72 channels", conv(1), {1, 40, 5, 6}, {72, 40, 3, 3}},
      {"3x3, many pixels", conv(1), {4, 8, 10, 13}, {8, 8, 3, 3}},
      {"3x3, stride 2, 24 channels", conv(1, 2), {3, 24, 7, 6}, {16, 24, 3, 3}, false},
      {"2x2", conv(), {1, 5, 6, 5}, {3, 5, 2, 2}},
      {"4x4, stride 2", conv(1, 2), {16, 3, 8, 10}, {5, 3, 4, 4}},
      {"1x7", pads(0, 3, 0, 3), {15, 3, 4, 9}, {4, 3, 1, 7}},
      {"5x1", pads(2, 0, 2, 0), {17, 2, 7, 3}, {6, 2, 5, 1}, false},
      {"stride 2", conv(1, 2), {33, 3, 9, 10}, {5, 3, 3, 3}},
      {"stride 3, gaps", conv(0, 3), {16, 2, 11, 10}, {5, 2, 2, 2}},
      {"stride 3, unused rim", conv(0, 3), {1, 2, 12, 13}, {3, 2, 3, 3}, false},
      {"asymmetric padding", pads(0, 1, 2, 3), {17, 3, 6, 5}, {5, 3, 3, 3}},
      {"padding wider than the kernel", pads(4, 3, 0, 5), {16, 1, 4, 4}, {2, 1, 3, 3}},
      {"downsampling", downsampling(), {2, 16, 8, 10}, {24, 16, 3, 3}},
      {"downsampling, odd sizes", downsampling(), {17, 5, 7, 9}, {6, 5, 3, 3}},
      {"dilation 2", conv(2, 1, 2), {15, 3, 9, 8}, {7, 3, 3, 3}},
      {"dilation 3, stride 2", conv(3, 2, 3), {17, 2, 12, 11}, {5, 2, 3, 3}},
      // What Winograd's tiles are about: edges in the middle of one, channels that fill neither a vector nor
      // a panel, few tiles with several pieces of filters, many tiles, and so many that the weight gradient
      // has parts.
      {"3x3, 19 to 37 channels", conv(1), {3, 19, 9, 10}, {37, 19, 3, 3}},
      {"3x3, 150 to 16 channels", conv(1), {1, 150, 3, 5}, {16, 150, 3, 3}, false, false},
      {"3x3, 16 to 70 channels, no padding", conv(0), {2, 16, 6, 7}, {70, 16, 3, 3}},
      {"3x3, many tiles", conv(1), {7, 17, 11, 14}, {33, 17, 3, 3}, true, false},
      {"3x3, many tiny images", conv(1), {270, 16, 1, 2}, {18, 16, 3, 3}, true, false},
      {"3x3, 16 channels, padding of all sizes", pads(0, 3, 4, 1), {2, 16, 5, 4}, {16, 16, 3, 3}},
      {"3x3, 16 channels, no samples", conv(1), {0, 16, 5, 5}, {16, 16, 3, 3}},
      // What tiles of lanes are about: edges in the middle of one, windows that lie partly or wholly in the padding, channels
      // in groups of several sizes, pieces of blocks, more tiles than a weight gradient takes at once.
      {"5x5, same", conv(2), {17, 6, 9, 7}, {5, 6, 5, 5}},
      {"5x5, 13 to 7 channels, padding of all sizes", pads(4, 1, 0, 6), {3, 13, 6, 5}, {7, 13, 5, 5}, false},
      {"5x5, much padding", pads(9, 2, 3, 8), {16, 4, 5, 6}, {4, 4, 5, 5}},
      {"5x5, an output of four channels", conv(), {2, 4, 5, 5}, {4, 4, 5, 5}},
      {"5x5, many tiles", conv(2), {70, 4, 6, 10}, {8, 4, 5, 5}, true, false},
      {"5x5, rows of three channels", conv(2), {18, 3, 9, 11}, {7, 3, 5, 5}},
      {"5x5, rows of two outputs, padding of all sizes", pads(1, 7, 5, 0), {3, 5, 6, 9}, {2, 5, 5, 5}, false},
      {"5x5, many strips", conv(1), {33, 2, 70, 9}, {3, 2, 5, 5}, true, false},
      {"5x5, four channels, no samples", conv(2), {0, 4, 5, 5}, {4, 4, 5, 5}},
      {"stride 2, dilation 2", conv(1, 2, 2), {16, 3, 9, 9}, {5, 3, 3, 3}},
      {"uneven", uneven(), {16, 3, 10, 12}, {5, 3, 2, 3}},
      {"2 groups", conv(1, 1, 1, 2), {17, 6, 6, 6}, {10, 3, 3, 3}},
      {"3 groups, stride 2", conv(1, 2, 1, 3), {16, 3, 7, 7}, {9, 1, 3, 3}, false},
      {"depthwise", conv(1, 1, 1, 17), {16, 17, 6, 7}, {17, 1, 3, 3}},
      {"depthwise, two a channel", conv(2, 2, 1, 5), {33, 5, 9, 9}, {10, 1, 5, 5}, false},
      // The tile in which the GPU transposes a weight gradient grows with the taps: it takes fewer channels from
      // 13x13 on, and has no room for one of 41x41.
      {"13x13", conv(6), {1, 8, 4, 5}, {8, 8, 13, 13}},
      {"17x17", conv(8), {1, 9, 3, 3}, {8, 9, 17, 17}},
      {"41x41", conv(20), {1, 8, 2, 2}, {8, 8, 41, 41}, true, false},
      {"kernel is the image", conv(), {17, 5, 4, 6}, {10, 5, 4, 6}},
      {"kernel is the padded image", conv(1), {1, 3, 3, 3}, {17, 3, 5, 5}},
      {"one output of one", conv(), {16, 1, 1, 1}, {1, 1, 1, 1}},
      {"no samples", conv(1), {0, 3, 5, 5}, {4, 3, 3, 3}},
  };
}

KernelCase forward_case(const Setting& s) {
  KernelCase c{
      .op = "conv2d", .label = s.label, .params = s.p, .in = {f32(s.x), f32(s.w)}, .out = {f32(s.y())}};
  if (s.bias) c.in.push_back(f32({s.w[0]}));
  c.batch_in = {0}, c.batch_out = {0}, c.tolerance = kTolerance, c.watched = s.watched;
  c.bf16_in = {0, 1};
  return c;
}

KernelCase input_grad_case(const Setting& s) {
  KernelCase c{.op = "conv2d_input_grad",
               .label = s.label,
               .params = s.p,
               .in = {f32(s.y()), f32(s.w)},
               .out = {f32(s.x)}};
  c.batch_in = {0}, c.batch_out = {0}, c.gradient_in = {0}, c.gradient_out = {0}, c.tolerance = kTolerance,
  c.watched = s.watched;
  c.bf16_in = {0, 1};
  return c;
}

KernelCase weight_grad_case(const Setting& s) {
  KernelCase c{.op = "conv2d_weight_grad",
               .label = s.label,
               .params = s.p,
               .in = {f32(s.x), f32(s.y())},
               .out = {f32(s.w)}};
  if (s.bias) c.out.push_back(f32({s.w[0]}));
  c.batch_in = {0, 1}, c.gradient_in = {1}, c.tolerance = kTolerance, c.watched = s.watched;
  return c;
}

const bool added_cases = add_kernel_cases([] {
  std::vector<KernelCase> all;
  for (const auto& s : settings()) {
    all.push_back(forward_case(s));
    all.push_back(input_grad_case(s));
    all.push_back(weight_grad_case(s));
  }
  for (Activation a : {Activation::relu, Activation::silu, Activation::gelu, Activation::quick_gelu,
                       Activation::tanh, Activation::sigmoid})
    for (bool bias : {false, true}) {
      for (int64_t channels : {3, 16}) {
        Setting s{fmt::format("{}, {} channels", name(a), channels),
                  conv(1),
                  {17, channels, 6, 5},
                  {channels + 4, channels, 3, 3},
                  bias};
        s.p.activation = a;
        all.push_back(forward_case(s));
        if (channels == 3) continue;
        // Sums of about 1: of 144 larger terms tanh and sigmoid would hide how large the numbers were that
        // were rounded.
        all.back().fill = [](std::vector<Buffer>& in, std::mt19937& random) {
          for (size_t i = 0; i < in.size(); ++i)
            fill_uniform(in[i], random, i == 1 ? -0.1f : -1, i == 1 ? 0.1f : 1);
        };
      }
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
    if (s.x[0] == 0) continue;
    const Shape x = {2, s.x[1], s.x[2], s.x[3]}, y = {2, s.w[0], s.y()[2], s.y()[3]};
    std::vector<Buffer> inputs;
    inputs.reserve(3);
    inputs.push_back(random_buffer(x, 1));
    inputs.push_back(random_buffer(s.w, 2));
    if (s.bias) inputs.push_back(random_buffer({s.w[0]}, 3));
    all.push_back({.label = "conv2d " + s.label,
                   .ops = {"conv2d", "conv2d_input_grad", "conv2d_weight_grad"},
                   .inputs = inputs,
                   .loss =
                       [p = s.p, y](const std::vector<Buffer>& in) {
                         return weighted_sum(run_reference("conv2d", p, in, {f32(y)}), 7);
                       },
                   .gradient =
                       [p = s.p, x, y, w = s.w](const std::vector<Buffer>& in) {
                         const Buffer dy = weighted_sum_gradient({f32(y)}, 7)[0];
                         std::vector<Buffer> d = run_reference("conv2d_input_grad", p, {dy, in[1]}, {f32(x)});
                         std::vector<TensorSpec> out = {f32(w)};
                         if (in.size() > 2) out.push_back(f32({w[0]}));
                         for (auto& g : run_reference("conv2d_weight_grad", p, {in[0], dy}, out))
                           d.push_back(g);
                         return d;
                       }});
  }
  return all;
});

Buffer filled(const Shape& s, std::vector<float> values) {
  const Buffer b(f32(s));
  std::copy(values.begin(), values.end(), b.as<float>());
  return b;
}

// Worked out by hand: what the reference, and so all else, is held to.
TEST(Conv2d, IsACrossCorrelationWithZeroPadding) {
  const Buffer x = filled({1, 1, 2, 3}, {1, 2, 3,  //
                                         4, 5, 6});
  const Buffer w = filled({1, 1, 2, 2}, {1, 10,  //
                                         100, 1000}),
               b = filled({1}, {0.5f});
  const Shape y = {1, 1, 2, 3};
  const auto out = run_reference("conv2d", pads(1, 0, 0, 1), {x, w, b}, {f32(y)})[0];
  const std::vector<float> expected = {2100.5f, 3200.5f, 300.5f, 5421.5f, 6532.5f, 603.5f};
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(out.as<float>()[i], expected[i]) << i;
}

TEST(Conv2d, GroupsKeepTheirChannelsApart) {
  const Buffer x = filled({1, 4, 1, 1}, {1, 2, 3, 4}), w = filled({2, 2, 1, 1}, {1, 10, 100, 1000});
  const auto out = run_reference("conv2d", conv(0, 1, 1, 2), {x, w}, {f32({1, 2, 1, 1})})[0];
  EXPECT_EQ(out.as<float>()[0], 21);
  EXPECT_EQ(out.as<float>()[1], 4300);
}

}  // namespace
}  // namespace lockstep::testing::conv2d_test
