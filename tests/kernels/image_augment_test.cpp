// Bytes are moved, so every kernel's result is the reference's.
#include "kernels/image_augment/image_augment.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "tests/support/kernel_cases.h"

namespace lockstep::testing {
namespace {

const TensorSpec kState{DType::u8, {static_cast<int64_t>(sizeof(StepState))}, Layout::plain};
const bool no_gradient_needed = declare_no_gradient("image_augment", "its input is data, not an activation");

TensorSpec bytes(const Shape& shape) { return {DType::u8, shape, Layout::plain}; }

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
    for (const ImageAugmentParams& p : {ImageAugmentParams{true, 0}, {false, 2}, {true, 4}, {true, 13}}) {
      KernelCase c{.op = "image_augment", .label = shape.text(), .params = p};
      c.in = {bytes(shape), kState}, c.out = {bytes(shape)};
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
  return run_kernel("image_augment", kernel, p, {x, state_buffer(s)}, {x.spec()})[0];
}

// Every one of the 2 x 9 pictures that the header allows appears, about as often as the others, and no other.
TEST(ImageAugment, DrawsEveryWindowAndBothSides) {
  constexpr int64_t kSamples = 3600, kHeight = 3, kWidth = 4;
  const Buffer y = augmented("reference", numbered(kSamples, kHeight, kWidth), {.flip = true, .padding = 1},
                             state_of(5, 0));
  std::map<std::string, int> seen;
  for (int64_t n = 0; n < kSamples; ++n)
    ++seen[std::string(y.as<char>() + n * kHeight * kWidth, static_cast<size_t>(kHeight * kWidth))];
  std::map<std::string, int> expected;
  for (int64_t top = -1; top <= 1; ++top)
    for (int64_t left = -1; left <= 1; ++left)
      for (bool mirrored : {false, true}) {
        std::string picture;
        for (int64_t i = 0; i < kHeight; ++i)
          for (int64_t j = 0; j < kWidth; ++j) {
            const int64_t row = i + top, column = (mirrored ? kWidth - 1 - j : j) + left;
            const bool inside = row >= 0 && row < kHeight && column >= 0 && column < kWidth;
            picture += static_cast<char>(inside ? 1 + row * kWidth + column : 0);
          }
        expected[picture] = 0;
      }
  ASSERT_EQ(expected.size(), 18u);
  EXPECT_EQ(seen.size(), 18u);
  for (const auto& [picture, count] : seen) {
    EXPECT_TRUE(expected.contains(picture));
    EXPECT_NEAR(count, 200, 70);  // five standard deviations of a binomial
  }
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
}  // namespace lockstep::testing
