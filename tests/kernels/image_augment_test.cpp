// SPDX-License-Identifier: Apache-2.0
// Bytes are moved, so every kernel's result is the reference's.
#include "kernels/image_augment/image_augment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "tests/support/kernel_cases.h"

namespace lockstep::testing::image_augment_test {
namespace {

const TensorSpec kState{DType::u8, {static_cast<int64_t>(sizeof(StepState))}, Layout::plain};
const bool no_gradient_needed = declare_no_gradient("image_augment", "its input is data, not an activation");

TensorSpec bytes(const Shape& shape) { return {DType::u8, shape, Layout::plain}; }

Shape window_of(const Shape& x, const ImageAugmentParams& p) {
  return {x[0], x[1], p.height ? p.height : x[2], p.width ? p.width : x[3]};
}

StepState state_of(int64_t step, int64_t first_sample) {
  return {.seed = 0xfeedbeef12345678, .step = step, .first_sample = first_sample, .global_samples = 64};
}

Buffer state_buffer(const StepState& s) {
  const Buffer b(kState);
  std::memcpy(b.data(), &s, sizeof s);
  return b;
}

std::vector<KernelCase> cases() {
  std::vector<KernelCase> all;
  // Rows of 4 and of other lengths; windows that may lie wholly outside.
  const Shape shapes[] = {{0, 3, 8, 8},    {1, 1, 1, 1}, {5, 3, 32, 32},
                          {17, 1, 28, 28}, {9, 3, 7, 5}, {6, 4, 3, 12}};
  for (const Shape& shape : shapes)
    for (ImageAugmentParams p : {ImageAugmentParams{true, 0},
                                 {false, 2},
                                 {true, 4},
                                 {true, 13},
                                 {true, 0, 3, 4},
                                 {false, 2, 7, 5},
                                 {true, 1, 1, 12}}) {
      p.height = std::min(p.height, shape[2]), p.width = std::min(p.width, shape[3]);
      KernelCase c{.op = "image_augment", .label = shape.text(), .params = p};
      c.in = {bytes(shape), kState}, c.out = {bytes(window_of(shape, p))};
      c.fill = [](std::vector<Buffer>& in, std::mt19937& random) {
        for (int64_t i = 0; i < in[0].spec().shape.elements(); ++i)
          in[0].as<uint8_t>()[i] = static_cast<uint8_t>(1 + random() % 255);
        in[1] = state_buffer(state_of(11, 1000));
      };
      all.push_back(c);
    }
  return all;
}
const bool added = add_kernel_cases(cases);

// Pixels that say where they come from: 1 + place.
Buffer numbered(int64_t samples, int64_t height, int64_t width) {
  const Buffer b(bytes({samples, 1, height, width}));
  for (int64_t i = 0; i < samples * height * width; ++i)
    b.as<uint8_t>()[i] = static_cast<uint8_t>(1 + i % (height * width));
  return b;
}

Buffer augmented(const char* kernel, const Buffer& x, const ImageAugmentParams& p, const StepState& s) {
  return run_kernel("image_augment", kernel, p, {x, state_buffer(s)},
                    {bytes(window_of(x.spec().shape, p))})[0];
}

// Every one of the pictures that the header allows appears, about as often as the others, and no other.
void expect_every_window(const ImageAugmentParams& p, size_t pictures) {
  constexpr int64_t kHeight = 3, kWidth = 4;
  const int64_t samples = 200 * static_cast<int64_t>(pictures), rows = p.height ? p.height : kHeight,
                columns = p.width ? p.width : kWidth;
  const Buffer y = augmented("reference", numbered(samples, kHeight, kWidth), p, state_of(5, 0));
  std::map<std::string, int> seen;
  for (int64_t n = 0; n < samples; ++n)
    ++seen[std::string(y.as<char>() + n * rows * columns, static_cast<size_t>(rows * columns))];
  std::map<std::string, int> expected;
  for (int64_t top = -p.padding; top <= kHeight + p.padding - rows; ++top)
    for (int64_t left = -p.padding; left <= kWidth + p.padding - columns; ++left)
      for (bool mirrored : {false, true}) {
        std::string picture;
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t j = 0; j < columns; ++j) {
            const int64_t row = i + top, column = (mirrored ? columns - 1 - j : j) + left;
            const bool inside = row >= 0 && row < kHeight && column >= 0 && column < kWidth;
            picture += static_cast<char>(inside ? 1 + row * kWidth + column : 0);
          }
        expected[picture] = 0;
      }
  ASSERT_EQ(expected.size(), pictures);
  EXPECT_EQ(seen.size(), pictures);
  for (const auto& [picture, count] : seen) {
    EXPECT_TRUE(expected.contains(picture));
    EXPECT_NEAR(count, 200, 70);  // five standard deviations of a binomial
  }
}

TEST(ImageAugment, DrawsEveryWindowAndBothSides) {
  expect_every_window({.flip = true, .padding = 1}, 2 * 3 * 3);
  expect_every_window({.flip = true, .padding = 0, .height = 2, .width = 3}, 2 * 2 * 2);
  expect_every_window({.flip = true, .padding = 1, .height = 3, .width = 2}, 2 * 3 * 5);
}

// A rank with part of the batch sees what one with the whole of it sees; another step, another picture.
TEST(ImageAugment, DependsOnSampleAndStepAlone) {
  const ImageAugmentParams p{.flip = true, .padding = 4};
  const Buffer x = numbered(10, 12, 12);
  const Buffer tail(bytes({4, 1, 12, 12}));
  std::memcpy(tail.data(), x.as<uint8_t>() + 6 * 144, 4 * 144);
  for (const char* kernel : {"reference", "rows"}) {
    const Buffer whole = augmented(kernel, x, p, state_of(3, 20)),
                 part = augmented(kernel, tail, p, state_of(3, 26));
    EXPECT_EQ(std::memcmp(whole.as<uint8_t>() + 6 * 144, part.data(), 4 * 144), 0) << kernel;
    const Buffer next = augmented(kernel, x, p, state_of(4, 20));
    EXPECT_NE(std::memcmp(whole.data(), next.data(), 10 * 144), 0) << kernel;
  }
}

}  // namespace
}  // namespace lockstep::testing::image_augment_test
