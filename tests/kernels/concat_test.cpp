// SPDX-License-Identifier: Apache-2.0
// Numbers are copied, so tolerances are 0 (bf16 outputs of bf16 inputs too).
#include "kernels/concat/concat.h"

#include <gtest/gtest.h>

#include "tests/support/kernel_cases.h"

namespace lockstep::testing::concat_test {
namespace {

Shape with_channels(Shape s, int64_t channels) {
  s.set(1, channels);
  return s;
}

struct Setting {
  Shape x;  // of all channels
  std::vector<int64_t> counts;
};

// One channel, odd counts, counts that fill 16 bytes (in fp32, in bf16), many inputs, features, no sample,
// enough for three threads.
std::vector<Setting> settings() {
  return {{{1, 2, 1, 1}, {1, 1}},  {{17, 5, 3, 5}, {2, 3}},      {{3, 24, 4, 4}, {8, 16}},
          {{2, 12, 5, 3}, {4, 8}}, {{2, 40, 3, 3}, {16, 8, 16}}, {{16, 7, 2, 3}, {1, 1, 2, 3}},
          {{33, 20}, {13, 7}},     {{5, 48}, {16, 32}},          {{2, 6, 7}, {2, 4}},
          {{0, 6, 2, 2}, {2, 4}},  {{4, 24, 32, 32}, {16, 8}}};
}

std::vector<KernelCase> cases() {
  std::vector<KernelCase> all;
  for (const auto& [shape, counts] : settings()) {
    KernelCase c{.op = "concat", .label = shape.text(), .params = NoParams{}, .out = {f32(shape)}};
    for (int64_t count : counts) {
      c.batch_in.push_back(static_cast<int>(c.in.size()));
      c.in.push_back(f32(with_channels(shape, count)));
    }
    c.batch_out = {0}, c.tolerance = 0, c.watched = shape.elements() < 50'000;
    all.push_back(c);
    for (int64_t begin = 0; int64_t count : counts) {
      KernelCase slice{.op = "slice_channels",
                       .label = shape.text(),
                       .params = SliceChannelsParams{begin, count},
                       .in = {f32(shape)},
                       .out = {f32(with_channels(shape, count))}};
      slice.batch_in = {0}, slice.batch_out = {0}, slice.tolerance = 0, slice.watched = c.watched;
      all.push_back(slice);
      slice.op = "slice_channels_grad";
      std::swap(slice.in, slice.out);
      slice.gradient_in = {0}, slice.gradient_out = {0};
      all.push_back(slice);
      begin += count;
    }
  }
  return all;
}
const bool added_cases = add_kernel_cases(cases);

Buffer random_buffer(const Shape& shape, unsigned seed) {
  const Buffer b(f32(shape));
  std::mt19937 random(seed);
  fill_uniform(b, random);
  return b;
}

const bool added_gradients = add_gradient_cases([] {
  const TensorSpec a = f32({3, 2, 2, 3}), b = f32({3, 4, 2, 3}), y = f32({3, 6, 2, 3});
  const SliceChannelsParams first{0, 2}, last{2, 4};
  GradientCase concat{.label = "concat",
                      .ops = {"concat", "slice_channels"},
                      .inputs = {random_buffer(a.shape, 1), random_buffer(b.shape, 2)}};
  concat.loss = [=](const std::vector<Buffer>& in) {
    return weighted_sum(run_reference("concat", NoParams{}, in, {y}), 3);
  };
  concat.gradient = [=](const std::vector<Buffer>&) {
    const auto dy = weighted_sum_gradient({y}, 3);
    return std::vector<Buffer>{run_reference("slice_channels", first, dy, {a})[0],
                               run_reference("slice_channels", last, dy, {b})[0]};
  };
  GradientCase slice{.label = "slice_channels",
                     .ops = {"slice_channels", "slice_channels_grad"},
                     .inputs = {random_buffer(y.shape, 4)}};
  slice.loss = [=](const std::vector<Buffer>& in) {
    return weighted_sum(run_reference("slice_channels", last, in, {b}), 5);
  };
  slice.gradient = [=](const std::vector<Buffer>&) {
    return run_reference("slice_channels_grad", last, weighted_sum_gradient({b}, 5), {y});
  };
  return std::vector<GradientCase>{concat, slice};
});

// The reference against numbers worked out by hand.
TEST(Concat, PutsChannelsOneAfterAnother) {
  const Buffer a(f32({2, 1, 1, 2})), b(f32({2, 2, 1, 2}));
  for (int i = 0; i < 4; ++i) a.as<float>()[i] = static_cast<float>(i);
  for (int i = 0; i < 8; ++i) b.as<float>()[i] = static_cast<float>(10 + i);
  const auto y = run_reference("concat", NoParams{}, {a, b}, {f32({2, 3, 1, 2})})[0];
  const std::vector<float> expected = {0, 1, 10, 11, 12, 13, 2, 3, 14, 15, 16, 17};
  EXPECT_EQ(std::vector<float>(y.as<float>(), y.as<float>() + 12), expected);
  const auto middle = run_reference("slice_channels", SliceChannelsParams{1, 1}, {y}, {f32({2, 1, 1, 2})})[0];
  EXPECT_EQ(std::vector<float>(middle.as<float>(), middle.as<float>() + 4),
            (std::vector<float>{10, 11, 14, 15}));
}

}  // namespace
}  // namespace lockstep::testing::concat_test
