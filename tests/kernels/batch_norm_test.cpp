// SPDX-License-Identifier: Apache-2.0
#include "kernels/batch_norm/batch_norm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/core/cpu_target.h"
#include "tests/support/combinations.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing::batch_norm_test {
namespace {

const BatchNormParams kParams{.eps = 1e-5f, .momentum = 0.1f};
const BatchNormParams kRelu{.eps = 1e-5f, .momentum = 0.1f, .activation = Activation::relu};

// Odd and even sizes of every dimension; single samples, channels and pixels; more than one piece of a
// reduction, of a GPU's too; channels around the widths of a vector and a tile.
std::vector<Shape> shapes() {
  return {{1, 1, 1, 1},  {1, 3, 5, 7},  {2, 4, 4, 4},  {15, 3, 3, 3},  {16, 2, 4, 4},  {17, 5, 1, 1},
          {33, 1, 6, 5}, {3, 2, 70, 9}, {40, 3, 3, 5}, {2, 33, 3, 17}, {5, 64, 2, 2},  {1, 7},
          {17, 10},      {64, 48},      {300, 5},      {0, 3, 4, 4},   {5, 2, 48, 48}, {3, 1, 41, 53}};
}

Shape with_channels(const Shape& x, int64_t rows) { return {rows, x[1]}; }
TensorSpec vector_of(const Shape& x) { return f32({x[1]}); }

// Statistics as merge would leave them: count, mean, variance, invstd.
void fill_stats(const Buffer& b, std::mt19937& random, double count) {
  const int64_t channels = b.spec().shape[1];
  fill_uniform(b, random);
  for (int64_t c = 0; c < channels; ++c) {
    float* s = b.as<float>() + c;
    const float variance = 0.5f + std::abs(s[2 * channels]);
    s[0] = static_cast<float>(count);
    s[2 * channels] = variance;
    s[3 * channels] = 1 / std::sqrt(variance + kParams.eps);
  }
}

auto fill_with_stats(size_t stats_index, double count) {
  return [=](std::vector<Buffer>& in, std::mt19937& random) {
    for (size_t i = 0; i < in.size(); ++i)
      i == stats_index ? fill_stats(in[i], random, count) : fill_uniform(in[i], random);
  };
}

std::vector<KernelCase> kernel_cases() {
  std::vector<KernelCase> all;
  for (const Shape& s : shapes()) {
    const TensorSpec x = f32(s), v = vector_of(s), stats = f32(with_channels(s, 4));
    const double count = static_cast<double>(s[0] * s.elements_from(2));
    const auto add = [&](KernelCase c) {
      c.label = s.text() + c.label;
      if (c.params.empty()) c.params = kParams;
      // Sums of up to 4,000 f32 terms: a 256-term f32 sum is off by some 1e-6 of its largest term at most.
      c.tolerance = 4e-6;
      all.push_back(std::move(c));
    };
    KernelCase c;
    c.op = "batch_norm_stats", c.in = {x}, c.out = {f32(with_channels(s, 3))}, c.batch_in = {0};
    add(c);
    c = {};
    c.op = "batch_norm_apply", c.in = {x, stats, v, v}, c.out = {x}, c.batch_in = c.batch_out = {0};
    c.fill = fill_with_stats(1, count), c.in_place = {{0, 0}};
    add(c);
    c.params = kRelu, c.label = " relu";
    add(c);
    c.in.push_back(x), c.batch_in = {0, 4}, c.label = " plus r, relu";
    add(c);
    c.params = kParams, c.label = " plus r";
    add(c);
    c = {};
    c.op = "batch_norm_grad_sums", c.in = {x, x, stats}, c.out = {f32(with_channels(s, 2))};
    c.batch_in = {0, 1}, c.gradient_in = {1}, c.fill = fill_with_stats(2, count);
    add(c);
    c.in.insert(c.in.end(), {v, v}), c.params = kRelu, c.label = " relu";
    add(c);
    c = {};
    c.op = "batch_norm_input_grad", c.in = {x, x, stats, v, f32(with_channels(s, 2))}, c.out = {x};
    c.batch_in = {0, 1}, c.gradient_in = {1}, c.batch_out = c.gradient_out = {0};
    c.fill = fill_with_stats(2, std::max(count, 1.0)), c.in_place = {{1, 0}};
    add(c);
    c.in.push_back(v), c.params = kRelu, c.label = " relu";
    add(c);
    c = {};
    c.op = "batch_norm_eval", c.in = {x, v, v, v, v}, c.out = {x}, c.batch_in = c.batch_out = {0};
    c.fill = [](std::vector<Buffer>& in, std::mt19937& random) {
      for (size_t i = 0; i < in.size(); ++i) fill_uniform(in[i], random, i == 2 ? 0.25f : -1);
    };
    c.in_place = {{0, 0}};
    add(c);
    c.params = kRelu, c.label = " relu";
    add(c);
    c.in.push_back(x), c.batch_in = {0, 5}, c.label = " plus r, relu";
    add(c);
    c.params = kParams, c.label = " plus r";
    add(c);
  }
  for (int64_t ranks : {1, 3}) {
    KernelCase c;
    c.op = "batch_norm_merge", c.label = fmt::format("{} ranks", ranks), c.params = kParams;
    c.in = {f32({ranks, 3, 5})}, c.out = {f32({4, 5})};
    c.fill = [](std::vector<Buffer>& in, std::mt19937& random) { fill_uniform(in[0], random, 0.5f, 2); };
    all.push_back(c);
  }
  for (const double count : {0.0, 1.0, 6.0}) {
    KernelCase c;
    c.op = "batch_norm_running", c.label = fmt::format("count {}", count), c.params = kParams;
    c.in = {f32({4, 5}), f32({5}), f32({5})}, c.out = {f32({5}), f32({5})}, c.in_place = {{1, 0}, {2, 1}};
    c.fill = fill_with_stats(0, count);
    all.push_back(c);
  }
  KernelCase c;
  c.op = "batch_norm_affine_grad", c.params = kParams, c.in = {f32({2, 5})}, c.out = {f32({5}), f32({5})};
  all.push_back(c);
  return all;
}
const bool cases = add_kernel_cases(kernel_cases);

// The ranks' parts of a batch, normalised as one; `cut` tells where the batch is cut.
struct Forward {
  Buffer stats;
  std::vector<Buffer> y;
};

Buffer slice(const Buffer& x, int64_t begin, int64_t end) {
  TensorSpec s = x.spec();
  s.shape.set(0, end - begin);
  Buffer part(s);
  const int64_t per = s.shape.elements_from(1);
  std::copy_n(x.as<float>() + begin * per, (end - begin) * per, part.as<float>());
  return part;
}

Buffer gather(const std::vector<Buffer>& parts, const std::string& op, size_t out_rows) {
  const int64_t channels = parts[0].spec().shape[1];
  const int64_t ranks = static_cast<int64_t>(parts.size());
  Buffer all(f32({ranks, 3, channels}));
  for (int64_t r = 0; r < ranks; ++r)
    std::copy_n(parts[static_cast<size_t>(r)].as<float>(), 3 * channels, all.as<float>() + r * 3 * channels);
  return run_reference(op, kParams, {all}, {f32({static_cast<int64_t>(out_rows), channels})})[0];
}

Forward forward(const std::vector<Buffer>& in, const std::vector<int64_t>& cut,
                const BatchNormParams& params = kParams) {
  const int64_t channels = in[0].spec().shape[1];
  std::vector<Buffer> parts, x;
  for (size_t r = 0; r + 1 < cut.size(); ++r) {
    x.push_back(slice(in[0], cut[r], cut[r + 1]));
    parts.push_back(run_reference("batch_norm_stats", kParams, {x.back()}, {f32({3, channels})})[0]);
  }
  Forward f{gather(parts, "batch_norm_merge", 4), {}};
  for (const auto& part : x)
    f.y.push_back(run_reference("batch_norm_apply", params, {part, f.stats, in[1], in[2]}, {part.spec()})[0]);
  return f;
}

Buffer join(const std::vector<Buffer>& parts, const TensorSpec& whole) {
  Buffer all(whole);
  float* to = all.as<float>();
  for (const auto& p : parts) to = std::copy_n(p.as<float>(), p.spec().shape.elements(), to);
  return all;
}

GradientCase gradient_case(std::string label, std::vector<int64_t> cut,
                           const BatchNormParams& params = kParams) {
  const Shape shape{7, 3, 2, 3};
  std::mt19937 random(5);
  GradientCase c;
  c.label = "batch_norm " + label;
  c.ops = {"batch_norm_stats",     "batch_norm_merge",      "batch_norm_apply",
           "batch_norm_grad_sums", "batch_norm_input_grad", "batch_norm_affine_grad"};
  for (const auto& s : {f32(shape), f32({3}), f32({3})}) {
    c.inputs.emplace_back(s);
    fill_uniform(c.inputs.back(), random);
  }
  if (params.activation == Activation::relu) {  // away from the kink, on both sides: |z| > 0.2
    for (int64_t i = 0; i < shape.elements(); ++i) {
      float& x = c.inputs[0].as<float>()[i];
      x = std::copysign(0.6f + 0.4f * std::abs(x), i % 2 == 0 ? 1.0f : -1.0f);
    }
    fill_uniform(c.inputs[1], random, 0.7f, 1.2f), fill_uniform(c.inputs[2], random, -0.1f, 0.1f);
  }
  c.loss = [=](const std::vector<Buffer>& in) {
    return weighted_sum({join(forward(in, cut, params).y, in[0].spec())}, 3);
  };
  c.gradient = [=](const std::vector<Buffer>& in) {
    const Buffer dy = weighted_sum_gradient({in[0].spec()}, 3)[0];
    const Forward f = forward(in, cut, params);
    const bool relu = params.activation == Activation::relu;
    std::vector<Buffer> sums, dx;
    Buffer total(f32({2, 3}));
    std::fill_n(total.as<float>(), 6, 0.0f);
    for (size_t r = 0; r + 1 < cut.size(); ++r) {
      const Buffer x = slice(in[0], cut[r], cut[r + 1]), g = slice(dy, cut[r], cut[r + 1]);
      std::vector<Buffer> of{x, g, f.stats};
      if (relu) of.insert(of.end(), {in[1], in[2]});
      const Buffer s = run_reference("batch_norm_grad_sums", params, of, {f32({2, 3})})[0];
      for (int i = 0; i < 6; ++i) total.as<float>()[i] += s.as<float>()[i];
    }
    for (size_t r = 0; r + 1 < cut.size(); ++r) {
      const Buffer x = slice(in[0], cut[r], cut[r + 1]), g = slice(dy, cut[r], cut[r + 1]);
      std::vector<Buffer> of{x, g, f.stats, in[1], total};
      if (relu) of.push_back(in[2]);
      dx.push_back(run_reference("batch_norm_input_grad", params, of, {x.spec()})[0]);
    }
    const auto affine = run_reference("batch_norm_affine_grad", kParams, {total}, {f32({3}), f32({3})});
    return std::vector<Buffer>{join(dx, in[0].spec()), affine[0], affine[1]};
  };
  return c;
}

const bool gradients = add_gradient_cases([] {
  return std::vector<GradientCase>{gradient_case("1 rank", {0, 7}),
                                   gradient_case("3 ranks, one of them without samples", {0, 3, 3, 7}),
                                   gradient_case("2 ranks, relu", {0, 3, 7}, kRelu)};
});
const bool running_flows_nothing =
    declare_no_gradient("batch_norm_running", "a moving average for evaluation; nothing flows back");
const bool eval_flows_nothing = declare_no_gradient("batch_norm_eval", "evaluation has no backward pass");

std::vector<std::string> stats_kernels(const Shape& s) {
  std::vector<std::string> names{"reference", "plain", "lanes"};
  if (s.rank() == 4) names.push_back("nhwc");
  return names;
}

Layout layout_of(const std::string& kernel) {
  return kernel == "lanes" ? Layout::lanes : kernel == "nhwc" ? Layout::nhwc : Layout::plain;
}

// E[x^2] - mean^2 in f32 would leave nothing of this variance: 1000^2 has an ulp of 0.06, the variance is
// 1e-4.
TEST(BatchNorm, SmallVarianceAroundALargeMean) {
  for (const Shape& s : {Shape{33, 3, 9, 5}, Shape{200, 3}, Shape{5, 3, 24, 24}}) {
    std::mt19937 random(9);
    Buffer x(f32(s));
    fill_uniform(x, random, 999.98f, 1000.02f);
    const int64_t hw = s.elements_from(2);
    const auto check = [&](const Buffer& part, const std::string& kernel) {
      for (int64_t c = 0; c < 3; ++c) {
        double mean = 0, m2 = 0;
        const auto each = [&](auto f) {
          for (int64_t n = 0; n < s[0]; ++n)
            for (int64_t i = 0; i < hw; ++i) f(double{x.as<float>()[(n * 3 + c) * hw + i]});
        };
        each([&](double v) { mean += v / static_cast<double>(s[0] * hw); });
        each([&](double v) { m2 += (v - mean) * (v - mean); });
        EXPECT_EQ(part.as<float>()[c], static_cast<float>(s[0] * hw)) << kernel;
        EXPECT_EQ(part.as<float>()[3 + c], static_cast<float>(mean)) << kernel;
        // Deviations are exact in f32 here and their squares summed in pieces: a few ulps.
        EXPECT_NEAR(part.as<float>()[6 + c], m2, 2e-6 * m2) << kernel;
      }
    };
    for (const auto& kernel : stats_kernels(s))
      for (int64_t target : targets_to_test()) {
        const int64_t initial = cpu_target();
        set_cpu_target(target);
        const Buffer part = run_kernel("batch_norm_stats", kernel, kParams,
                                       {to_layout(x, layout_of(kernel), 1e6f)}, {f32({3, 3})})[0];
        set_cpu_target(initial);
        check(part, kernel + " " + cpu_target_name(target));
      }
    for (Layout layout : {Layout::plain, Layout::nhwc}) {
      if (layout == Layout::nhwc && s.rank() != 4) continue;
      const auto part = run_kernel("batch_norm_stats", "pieces", kParams, {to_layout(x, layout)},
                                   {f32({3, 3})}, 1, Device::simt);
      check(part[0], fmt::format("pieces {}", name(layout)));
    }
  }
}

TEST(BatchNorm, BitsDependNeitherOnThreadsNorOnTheInstructionSet) {
  std::mt19937 random(4);
  const Shape s{37, 5, 13, 11};
  Buffer x(f32(s)), dy(f32(s)), stats(f32({4, 5}));
  fill_uniform(x, random), fill_uniform(dy, random), fill_stats(stats, random, 37 * 13 * 11);
  const int64_t initial = cpu_target();
  for (const std::string kernel : {"plain", "lanes", "nhwc"}) {
    const Buffer lx = to_layout(x, layout_of(kernel), 0.5f), ldy = to_layout(dy, layout_of(kernel));
    std::vector<float> first;
    for (int64_t target : targets_to_test())
      for (int threads : thread_counts()) {
        set_cpu_target(target);
        const Buffer part = run_kernel("batch_norm_stats", kernel, kParams, {lx}, {f32({3, 5})}, threads)[0];
        const Buffer sums =
            run_kernel("batch_norm_grad_sums", kernel, kParams, {lx, ldy, stats}, {f32({2, 5})}, threads)[0];
        std::vector<float> bits(part.as<float>(), part.as<float>() + 15);
        bits.insert(bits.end(), sums.as<float>(), sums.as<float>() + 10);
        if (first.empty()) first = bits;
        EXPECT_EQ(bits, first) << kernel << " " << threads << " threads " << cpu_target_name(target);
      }
  }
  set_cpu_target(initial);
}

// relu inside is relu after, to the bit, in all three passes: y tells the sign of z that the gradients make
// again from x.
TEST(BatchNorm, ReluInsideGivesTheBitsOfReluAfter) {
  std::mt19937 random(8);
  const Shape s{19, 37, 5, 7};
  Buffer x(f32(s)), dy(f32(s)), stats(f32({4, 37})), gamma(f32({37})), beta(f32({37})), sums(f32({2, 37}));
  for (Buffer* b : {&x, &dy, &gamma, &beta, &sums}) fill_uniform(*b, random);
  fill_stats(stats, random, 19 * 5 * 7);
  const auto bits = [](const Buffer& b) {
    return std::vector<float>(b.as<float>(), b.as<float>() + b.spec().shape.elements());
  };
  const auto check = [&](const std::string& suffix, Layout layout, Device device) {
    const auto name_of = [&](const char* on_gpu) {
      return device == Device::cpu ? std::string(name(layout)) : on_gpu;
    };
    const auto run = [&](const char* op, const char* on_gpu, const BatchNormParams& p, std::vector<Buffer> in,
                         const TensorSpec& out) {
      return run_kernel(op, name_of(on_gpu), p, std::move(in), {out}, 1, device)[0];
    };
    const Buffer lx = to_layout(x, layout), ldy = to_layout(dy, layout);
    Buffer y = run("batch_norm_apply", "direct", kParams, {lx, stats, gamma, beta}, lx.spec());
    const Buffer fused = run("batch_norm_apply", "direct", kRelu, {lx, stats, gamma, beta}, lx.spec());
    Buffer dz(ldy.spec());
    for (int64_t i = 0; i < s.elements(); ++i) {
      float& z = y.as<float>()[i];
      z = z < 0 ? 0 : z;
      dz.as<float>()[i] = z > 0 ? ldy.as<float>()[i] : 0;
    }
    EXPECT_EQ(bits(fused), bits(y)) << suffix;
    const TensorSpec sums_spec = f32({2, 37});
    EXPECT_EQ(bits(run("batch_norm_grad_sums", "pieces", kRelu, {lx, ldy, stats, gamma, beta}, sums_spec)),
              bits(run("batch_norm_grad_sums", "pieces", kParams, {lx, dz, stats}, sums_spec)))
        << suffix;
    EXPECT_EQ(
        bits(run("batch_norm_input_grad", "direct", kRelu, {lx, ldy, stats, gamma, sums, beta}, lx.spec())),
        bits(run("batch_norm_input_grad", "direct", kParams, {lx, dz, stats, gamma, sums}, lx.spec())))
        << suffix;
  };
  const int64_t initial = cpu_target();
  for (int64_t target : targets_to_test()) {
    set_cpu_target(target);
    for (Layout layout : {Layout::plain, Layout::nhwc})
      check(fmt::format("{} {}", cpu_target_name(target), name(layout)), layout, Device::cpu);
  }
  set_cpu_target(initial);
  for (Layout layout : {Layout::plain, Layout::nhwc})
    check(fmt::format("simt {}", name(layout)), layout, Device::simt);
}

TEST(BatchNorm, MergeOfPartsIsTheWholeAndIgnoresEmptyRanks) {
  std::mt19937 random(6);
  std::vector<Buffer> in{Buffer(f32({9, 4, 3, 3})), Buffer(f32({4})), Buffer(f32({4}))};
  for (auto& b : in) fill_uniform(b, random, 2, 5);
  const Buffer whole = forward(in, {0, 9}).stats, cut = forward(in, {0, 0, 2, 2, 9}).stats;
  // Parts are rounded to f32 once each.
  for (int i = 0; i < 16; ++i)
    EXPECT_NEAR(cut.as<float>()[i], whole.as<float>()[i], 1e-6 * whole.as<float>()[i]);
  EXPECT_EQ(whole.as<float>()[0], 81);
}

TEST(BatchNorm, NoSampleAnywhere) {
  const Buffer part =
      run_reference("batch_norm_stats", kParams, {Buffer(f32({0, 2, 3, 3}))}, {f32({3, 2})})[0];
  for (int i = 0; i < 6; ++i) EXPECT_EQ(part.as<float>()[i], 0);
  const Buffer stats = gather({part, part}, "batch_norm_merge", 4);
  EXPECT_EQ(stats.as<float>()[0], 0);
  EXPECT_FLOAT_EQ(stats.as<float>()[6], 1 / std::sqrt(1e-5f));
}

TEST(BatchNorm, RunningVarianceIsUnbiasedAndOneValueHasNone) {
  const auto run = [](float count) {
    Buffer stats(f32({4, 1})), mean(f32({1})), var(f32({1}));
    const float s[] = {count, 3, 8, 0.35f};
    std::copy_n(s, 4, stats.as<float>());
    *mean.as<float>() = 1, *var.as<float>() = 2;
    return run_reference("batch_norm_running", kParams, {stats, mean, var}, {f32({1}), f32({1})});
  };
  EXPECT_FLOAT_EQ(*run(5)[0].as<float>(), 0.9f * 1 + 0.1f * 3);
  EXPECT_FLOAT_EQ(*run(5)[1].as<float>(), 0.9f * 2 + 0.1f * 10);  // 8 * 5/4
  EXPECT_FLOAT_EQ(*run(1)[0].as<float>(), 0.9f * 1 + 0.1f * 3);
  EXPECT_EQ(*run(1)[1].as<float>(), 2);
  EXPECT_EQ(*run(0)[0].as<float>(), 1);
  EXPECT_EQ(*run(0)[1].as<float>(), 2);
}

}  // namespace
}  // namespace lockstep::testing::batch_norm_test
