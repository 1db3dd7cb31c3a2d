// SPDX-License-Identifier: Apache-2.0
#include "kernels/group_norm/group_norm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/core/cpu_target.h"
#include "tests/support/combinations.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing::group_norm_test {
namespace {

struct Sizes {
  Shape x;
  int64_t groups;
};

// Odd sizes, one channel, one group, as many groups as channels, several pieces and tiles, no sample; for
// GPUs groups that few and many threads hold, and that don't fit.
std::vector<Sizes> sizes() {
  return {{{1, 1, 1, 1}, 1},  {{1, 4, 3, 5}, 2},   {{2, 6, 7, 7}, 3},    {{15, 3, 4, 4}, 3},
          {{16, 8, 2, 3}, 4}, {{17, 2, 5, 1}, 1},  {{33, 6, 3, 3}, 2},   {{3, 4, 23, 29}, 2},
          {{2, 48, 3, 5}, 8}, {{5, 70, 2, 2}, 10}, {{2, 33, 17, 17}, 3}, {{17, 12}, 4},
          {{3, 40}, 1},       {{0, 4, 3, 3}, 2},   {{2, 16, 20, 16}, 4}, {{1, 16, 48, 40}, 1},
          {{1, 2, 47, 45}, 1}};
}

void fill_stats(const Buffer& b, std::mt19937& random, int64_t groups) {
  fill_uniform(b, random);
  for (int64_t n = 0; n < b.spec().shape[0]; ++n)
    for (int64_t g = 0; g < groups; ++g) {
      float& invstd = b.as<float>()[n * 2 * groups + groups + g];
      invstd = 1.5f + invstd;
    }
}

std::vector<KernelCase> kernel_cases() {
  std::vector<KernelCase> all;
  for (const auto& [shape, groups] : sizes()) {
    const TensorSpec x = f32(shape), v = f32({shape[1]}), stats = f32({shape[0], 2 * groups});
    for (Activation activation : {Activation::none, Activation::silu}) {
      KernelCase c;
      c.op = "group_norm";
      c.label = fmt::format("{} groups={} {}", shape.text(), groups, name(activation));
      c.params = GroupNormParams{.groups = groups, .activation = activation};
      c.in = {x, v, v}, c.out = {x, stats};
      c.batch_in = {0}, c.batch_out = {0, 1};
      c.tolerance = 4e-6;            // 256-term f32 sums
      c.bf16_in = c.bf16_out = {0};  // statistics stay f32
      all.push_back(c);
      c.op = "group_norm_grad";
      c.in = {x, x, v, v, stats}, c.out = {x, v, v};
      c.batch_in = {0, 1, 4}, c.gradient_in = {1}, c.batch_out = c.gradient_out = {0};
      c.bf16_in = {0, 1};
      c.fill = [g = groups](std::vector<Buffer>& in, std::mt19937& random) {
        for (size_t i = 0; i < 4; ++i) fill_uniform(in[i], random);
        fill_stats(in[4], random, g);
      };
      all.push_back(c);
    }
  }
  return all;
}
const bool cases = add_kernel_cases(kernel_cases);

const bool gradients = add_gradient_cases([] {
  std::vector<GradientCase> all;
  const TensorSpec x = f32({3, 4, 2, 3}), v = f32({4}), stats = f32({3, 4});
  for (Activation activation : {Activation::none, Activation::silu}) {
    const GroupNormParams params{.groups = 2, .activation = activation};
    std::mt19937 random(8);
    GradientCase c;
    c.label = fmt::format("group_norm {}", name(activation));
    c.ops = {"group_norm", "group_norm_grad"};
    for (const auto& s : {x, v, v}) {
      c.inputs.emplace_back(s);
      fill_uniform(c.inputs.back(), random);
    }
    c.loss = [=](const std::vector<Buffer>& in) {
      return weighted_sum({run_reference("group_norm", params, in, {x, stats})[0]}, 4);
    };
    c.gradient = [=](const std::vector<Buffer>& in) {
      const auto out = run_reference("group_norm", params, in, {x, stats});
      const Buffer dy = weighted_sum_gradient({x}, 4)[0];
      return run_reference("group_norm_grad", params, {in[0], dy, in[1], in[2], out[1]}, {x, v, v});
    };
    all.push_back(c);
  }
  return all;
});

Layout layout_of(const std::string& kernel) {
  return kernel == "lanes" ? Layout::lanes : kernel == "nhwc" ? Layout::nhwc : Layout::plain;
}

// 1000^2 has an ulp of 0.06 in f32; the variance is about 1e-4.
TEST(GroupNorm, SmallVarianceAroundALargeMean) {
  const Shape s{5, 4, 31, 11};
  std::mt19937 random(9);
  Buffer x(f32(s)), v(f32({4}));
  fill_uniform(x, random, 999.98f, 1000.02f), fill_uniform(v, random);
  const GroupNormParams params{.groups = 2, .eps = 0};
  const auto check = [&](const std::string& kernel, Layout layout, Device device) {
    SCOPED_TRACE(fmt::format("{} {} {}", kernel, name(layout), name(device)));
    const TensorSpec statistics = f32({5, 4}, layout == Layout::lanes ? layout : Layout::plain);
    const auto out = run_kernel("group_norm", kernel, params, {to_layout(x, layout, 7), v, v},
                                {f32(s, layout), statistics}, 1, device);
    const Buffer stats = to_layout(out[1], Layout::plain);
    const int64_t per = 2 * 31 * 11;
    for (int64_t n = 0; n < 5; ++n)
      for (int64_t g = 0; g < 2; ++g) {
        const float* p = x.as<float>() + (n * 2 + g) * per;
        double mean = 0, m2 = 0;
        for (int64_t i = 0; i < per; ++i) mean += double{p[i]} / static_cast<double>(per);
        for (int64_t i = 0; i < per; ++i) m2 += (double{p[i]} - mean) * (double{p[i]} - mean);
        EXPECT_EQ(stats.as<float>()[n * 4 + g], static_cast<float>(mean));
        const double invstd = std::sqrt(static_cast<double>(per) / m2);
        EXPECT_NEAR(stats.as<float>()[n * 4 + 2 + g], invstd, 2e-6 * invstd);  // a few ulps
      }
  };
  for (const std::string kernel : {"reference", "plain", "lanes", "nhwc"})
    check(kernel, layout_of(kernel), Device::cpu);
  for (const std::string kernel : {"resident", "pieces"})
    for (Layout layout : {Layout::plain, Layout::nhwc}) check(kernel, layout, Device::simt);
}

TEST(GroupNorm, BitsDependNeitherOnThreadsNorOnTheInstructionSet) {
  std::mt19937 random(4);
  const Shape s{37, 6, 13, 11};
  Buffer x(f32(s)), dy(f32(s)), v(f32({6}));
  fill_uniform(x, random), fill_uniform(dy, random), fill_uniform(v, random);
  const GroupNormParams params{.groups = 3};
  const int64_t initial = cpu_target();
  for (const std::string kernel : {"plain", "lanes", "nhwc"}) {
    const Layout layout = layout_of(kernel);
    const TensorSpec like = f32(s, layout);
    const TensorSpec stats = f32({37, 6}, layout == Layout::lanes ? layout : Layout::plain);
    std::vector<float> first;
    for (int64_t target : targets_to_test())
      for (int threads : thread_counts()) {
        set_cpu_target(target);
        const Buffer lx = to_layout(x, layout), ldy = to_layout(dy, layout);
        const auto y = run_kernel("group_norm", kernel, params, {lx, v, v}, {like, stats}, threads);
        const auto d = run_kernel("group_norm_grad", kernel, params, {lx, ldy, v, v, y[1]},
                                  {like, v.spec(), v.spec()}, threads);
        std::vector<float> bits;
        for (const auto& b : {y[0], y[1], d[0], d[1], d[2]})
          bits.insert(bits.end(), b.as<float>(), b.as<float>() + b.spec().stored_elements());
        if (first.empty()) first = bits;
        EXPECT_EQ(bits, first) << kernel << " " << threads << " threads " << cpu_target_name(target);
      }
  }
  set_cpu_target(initial);
}

}  // namespace
}  // namespace lockstep::testing::group_norm_test
