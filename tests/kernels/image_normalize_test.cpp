// SPDX-License-Identifier: Apache-2.0
// Tolerance: x * scale + offset in float against double. Scale, offset, product and sum are rounded once
// each (6e-8), of numbers as large as the largest result plus |offset|: 4e-7 of the largest.
#include "kernels/image_normalize/image_normalize.h"

#include <gtest/gtest.h>

#include "tests/support/kernel_cases.h"

namespace lockstep::testing::image_normalize_test {
namespace {

const bool no_gradient_needed =
    declare_no_gradient("image_normalize", "its input is data, not an activation");

std::vector<KernelCase> cases() {
  const ImageNormalizeParams grey{{0.1307f}, {0.3081f}};
  const ImageNormalizeParams colour{{0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}};
  std::vector<KernelCase> all;
  const auto add = [&](const Shape& s, const ImageNormalizeParams& p) {
    KernelCase c{.op = "image_normalize", .label = s.text(), .params = p, .out = {f32(s)}, .batch_out = {0}};
    c.in = {{DType::u8, s, Layout::plain}};  // stays plain in every layout
    c.tolerance = 4e-7;
    all.push_back(c);
  };
  for (int64_t n : {0, 1, 15, 16, 17, 33}) {
    add({n, 1, 28, 28}, grey);
    add({n, 3, 7, 5}, colour);
  }
  add({4, 3, 1, 1}, colour);
  add({2, 3, 32, 32}, colour);
  ImageNormalizeParams many;  // more than a GPU launch takes at once
  for (int c = 0; c < 37; ++c) many.mean.push_back(0.02f * static_cast<float>(c)), many.std.push_back(0.3f);
  add({3, 37, 4, 4}, many);
  add({2, 37, 3, 3}, many);
  return all;
}
const bool added = add_kernel_cases(cases);

TEST(ImageNormalize, BlackAndWhite) {
  const Buffer x({DType::u8, {1, 1, 1, 2}, Layout::plain});
  x.as<uint8_t>()[0] = 0;
  x.as<uint8_t>()[1] = 255;
  const ImageNormalizeParams p{{0.25f}, {0.5f}};
  for (const char* kernel : {"reference", "highway"}) {
    const Buffer y = run_kernel("image_normalize", kernel, p, {x}, {f32({1, 1, 1, 2})})[0];
    EXPECT_FLOAT_EQ(y.as<float>()[0], -0.5f);
    EXPECT_FLOAT_EQ(y.as<float>()[1], 1.5f);
  }
}

}  // namespace
}  // namespace lockstep::testing::image_normalize_test
