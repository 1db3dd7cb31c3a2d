// SPDX-License-Identifier: Apache-2.0
#include "kernels/cast/cast.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "kernels/core/bf16.h"
#include "kernels/core/cpu_target.h"
#include "tests/support/combinations.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing::cast_test {
namespace {

const bool no_gradient =
    declare_no_gradient("cast", "casts are put between nodes after gradients have been made");

std::vector<KernelCase> cases() {
  std::vector<KernelCase> all;
  for (const Shape& shape :
       {Shape{1}, Shape{7}, Shape{0, 3}, Shape{33, 17}, Shape{17, 3, 5, 7}, Shape{40, 4, 16, 16}})
    for (bool to_bf16 : {true, false}) {
      TensorSpec half = f32(shape);
      half.dtype = DType::bf16;
      KernelCase c{
          .op = "cast", .label = shape.text(), .params = NoParams{}, .in = {f32(shape)}, .out = {half}};
      if (!to_bf16) {
        std::swap(c.in, c.out);
        c.fill = [](std::vector<Buffer>& in, std::mt19937& random) {
          const Buffer x({DType::f32, in[0].spec().shape, Layout::plain});
          fill_uniform(x, random);
          in[0] = converted(x, DType::bf16);
        };
      }
      if (shape.rank() > 1) c.batch_in = c.batch_out = {0};
      c.tolerance = 0;  // and bit for bit below
      all.push_back(c);
    }
  return all;
}
const bool added = add_kernel_cases(cases);

// Every upper half with the lower ones around a tie, NaNs and infinities among them, and all of bf16 back.
TEST(Cast, EveryKernelGivesBf16sOwnBits) {
  constexpr uint32_t kLow[] = {0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF};
  const int64_t count = 0x10000 * 6;
  const Buffer x(f32({count}));
  for (int64_t i = 0; i < count; ++i)
    x.as<float>()[i] = std::bit_cast<float>(static_cast<uint32_t>(i / 6) << 16 | kLow[i % 6]);
  const TensorSpec half{DType::bf16, {count}, Layout::plain};
  const int64_t initial = cpu_target();
  const auto check = [&](const std::string& kernel, Device device) {
    const Buffer y = run_kernel("cast", kernel, NoParams{}, {x}, {half}, 2, device)[0];
    const Buffer back = run_kernel("cast", kernel, NoParams{}, {y}, {x.spec()}, 2, device)[0];
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; ++i) {
      const bf16 expected(x.as<float>()[i]);
      wrong += y.as<bf16>()[i].bits != expected.bits;
      wrong += std::bit_cast<uint32_t>(back.as<float>()[i]) != uint32_t{expected.bits} << 16;
    }
    EXPECT_EQ(wrong, 0) << kernel << " " << cpu_target_name(cpu_target());
  };
  for (int64_t target : targets_to_test()) {
    set_cpu_target(target);
    check("highway", Device::cpu);
  }
  set_cpu_target(initial);
  check("reference", Device::cpu);
  check("eights", Device::simt);
}

}  // namespace
}  // namespace lockstep::testing::cast_test
