// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention/tiles.h"
#include "kernels/core/cpu_target.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing::attention_test {
namespace {

struct Sizes {
  Shape q, k;
  int64_t heads;
  bool far_below = false;  // scores of about -120: exp(score) is 0, exp(-lse) infinite
  bool causal = false;
  bool watched = true;
  int64_t tokens() const { return TokenSizes(f32(q)).tokens; }
  int64_t width() const { return TokenSizes(f32(q)).channels / heads; }
  AttentionParams params(float scale) const { return {heads, scale, causal}; }
};

// One token, one channel; odd lengths below, at and above a tile's 32; several tiles that share passes over the keys; keys below
// and above the 96 that a tile meets at once; other tokens than its own; widths 1 to 512; whole tiles of 128, as cuDNN's
// gradient wants. Tokens and images; causal with as many keys as queries, fewer and more, within a tile and over several.
std::vector<Sizes> sizes() {
  return {{{1, 1, 1, 1}, {1, 1, 1, 1}, 1},
          {{2, 3, 3, 5}, {2, 3, 3, 5}, 3},
          {{1, 10, 1, 3}, {1, 10, 1, 3}, 2},
          {{2, 14, 7, 7}, {2, 14, 7, 7}, 2},
          {{3, 32, 8, 8}, {3, 32, 8, 8}, 1},
          {{1, 24, 5, 13}, {1, 24, 5, 13}, 3},
          {{17, 6, 2, 3}, {17, 6, 2, 3}, 2},
          {{1, 40, 9, 17}, {1, 40, 9, 17}, 5},
          {{2, 64, 6, 11}, {2, 64, 6, 11}, 1},
          {{1, 8, 3, 3}, {1, 8, 7, 11}, 2},
          {{2, 6, 10, 13}, {2, 6, 1, 2}, 3},
          {{1, 130, 3, 7}, {1, 130, 3, 7}, 1},
          {{1, 192, 5, 5}, {1, 192, 4, 9}, 2},
          {{1, 256, 4, 4}, {1, 256, 4, 4}, 1},
          {{1, 512, 3, 13}, {1, 512, 3, 13}, 1},
          {{2, 21, 12}, {2, 33, 12}, 2},
          {{1, 16, 8, 16}, {1, 16, 16, 16}, 2},
          {{0, 8, 3, 3}, {0, 8, 3, 3}, 2},
          {{1, 8, 3, 3}, {1, 8, 3, 7}, 1, true},
          {{1, 1, 1}, {1, 1, 1}, 1, false, true},
          {{2, 77, 16}, {2, 77, 16}, 2, false, true},
          {{1, 150, 24}, {1, 150, 24}, 3, false, true},
          {{1, 70, 8}, {1, 130, 8}, 1, false, true},
          {{1, 140, 8}, {1, 67, 8}, 1, false, true},
          {{2, 6, 9, 9}, {2, 6, 9, 9}, 2, false, true},
          {{1, 70, 512}, {1, 70, 512}, 1, false, true, false},
          {{2, 81, 64}, {2, 77, 64}, 8},
          {{1, 65, 80}, {1, 77, 80}, 2},
          {{1, 20, 320}, {1, 77, 320}, 2},
          {{2, 130, 12}, {2, 99, 12}, 4, false, false, false},
          {{2, 101, 6}, {2, 101, 6}, 2, false, true, false},
          {{1, 12, 512}, {1, 77, 512}, 1},
          {{1, 128, 40}, {1, 256, 40}, 1, false, false, false}};
}

float scale_of(const Sizes& s) { return 1 / std::sqrt(static_cast<float>(s.width())); }

TensorSpec lse_spec(const Sizes& s, Layout layout = Layout::plain) {
  return f32({s.q[0], s.heads, s.tokens()}, layout == Layout::lanes ? layout : Layout::plain);
}

void fill_forward(const Sizes& s, std::vector<Buffer>& in, std::mt19937& random) {
  fill_uniform(in[0], random, s.far_below ? 4.5f : -2, s.far_below ? 8.5f : 2);
  fill_uniform(in[1], random, s.far_below ? -8.5f : -2, s.far_below ? -4.5f : 2);
  fill_uniform(in[2], random, -2, 2);
}

// lse and o as the forward kernel gives them, since p <= 1 holds only then.
void fill_backward(const Sizes& s, const Params& params, std::vector<Buffer>& in, std::mt19937& random) {
  fill_forward(s, in, random);
  fill_uniform(in[5], random, -2, 2);
  const auto out = run_reference("attention", params, {in[0], in[1], in[2]}, {f32(s.q), lse_spec(s)});
  for (size_t i : {0, 1})
    std::copy_n(out[i].as<float>(), out[i].spec().stored_elements(), in[3 + i].as<float>());
}

std::vector<KernelCase> kernel_cases() {
  std::vector<KernelCase> all;
  for (const Sizes& s : sizes()) {
    const TensorSpec q = f32(s.q), k = f32(s.k), lse = lse_spec(s);
    const AttentionParams params = s.params(scale_of(s));
    // lse is in q's layout in lanes and plain beside nhwc: once as a batch tensor, once not.
    for (bool follows : {true, false}) {
      const auto with = [&](std::vector<int> always, int index) {
        if (follows) always.push_back(index);
        return always;
      };
      KernelCase c;
      c.op = "attention";
      c.label = fmt::format("{} to {}{}{}", s.q.text(), s.k.text(), s.causal ? " causal" : "",
                            follows ? "" : " plain lse");
      c.params = params;
      c.in = {q, k, k}, c.out = {q, lse};
      c.batch_in = {0, 1, 2}, c.batch_out = with({0}, 1);
      c.watched = follows && s.watched;  // on a GPU both are the same
      c.bf16_in = {0, 1, 2}, c.bf16_out = {0};
      c.fill = [s](std::vector<Buffer>& in, std::mt19937& random) { fill_forward(s, in, random); };
      // Scores are f32 sums of up to 512 products, to some 1e-6, and so are their exponentials; of scores of
      // -120, to 2e-5. p is rounded to bf16, by 2^-9 of it.
      c.tolerance = s.far_below ? 5e-5 : 5e-6;
      c.bf16_tolerance = 4e-3;
      all.push_back(c);
      c.op = "attention_grad";
      c.in = {q, k, k, q, lse, q}, c.out = {q, k, k};
      c.batch_in = with({0, 1, 2, 3, 5}, 4);
      c.gradient_in = {5}, c.batch_out = c.gradient_out = {0, 1, 2};
      c.fill = [s, params](std::vector<Buffer>& in, std::mt19937& random) {
        fill_backward(s, params, in, random);
      };
      c.bf16_in = {0, 1, 2, 3, 5}, c.bf16_out = {0, 1, 2};
      // The same; ds is a difference of sums of that size, and far below what they are multiplied with is
      // nearly equal.
      c.tolerance = s.far_below ? 5e-4 : 2e-5;
      c.bf16_tolerance = s.far_below ? 3e-2 : 8e-3;
      all.push_back(c);
    }
  }
  return all;
}
const bool cases = add_kernel_cases(kernel_cases);

const bool gradients = add_gradient_cases([] {
  std::vector<GradientCase> all;
  for (const Sizes& s : {Sizes{{2, 6, 2, 3}, {2, 6, 2, 3}, 2}, Sizes{{1, 5, 3, 3}, {1, 5, 1, 4}, 1},
                         Sizes{{2, 5, 6}, {2, 7, 6}, 2}, Sizes{{1, 6, 4}, {1, 6, 4}, 1, false, true}}) {
    const AttentionParams params = s.params(0.7f);
    const TensorSpec q = f32(s.q), k = f32(s.k);
    std::mt19937 random(8);
    GradientCase c;
    c.label = "attention " + s.q.text();
    c.ops = {"attention", "attention_grad"};
    for (const auto& spec : {q, k, k}) {
      c.inputs.emplace_back(spec);
      fill_uniform(c.inputs.back(), random);
    }
    c.loss = [=](const std::vector<Buffer>& in) {
      return weighted_sum({run_reference("attention", params, in, {q, lse_spec(s)})[0]}, 4);
    };
    c.gradient = [=](const std::vector<Buffer>& in) {
      const auto out = run_reference("attention", params, in, {q, lse_spec(s)});
      return run_reference("attention_grad", params,
                           {in[0], in[1], in[2], out[0], out[1], weighted_sum_gradient({q}, 4)[0]},
                           {q, k, k});
    };
    all.push_back(std::move(c));
  }
  return all;
});

// exp of these scores overflows, and of most differences underflows.
TEST(Attention, LargeScoresStayFinite) {
  const Sizes s{{1, 8, 10, 13}, {1, 8, 10, 13}, 2};
  std::mt19937 random(3);
  Buffer q(f32(s.q)), k(f32(s.k)), v(f32(s.k));
  fill_uniform(q, random, -30, 30), fill_uniform(k, random, -30, 30), fill_uniform(v, random);
  const AttentionParams params{.heads = 2, .scale = 0.5f};
  const auto expected = run_reference("attention", params, {q, k, v}, {q.spec(), lse_spec(s)});
  for (const std::string kernel : {"tiled", "tiled_nhwc"}) {
    const Layout layout = kernel == "tiled" ? Layout::plain : Layout::nhwc;
    const auto got = run_kernel("attention", kernel, params,
                                {to_layout(q, layout), to_layout(k, layout), to_layout(v, layout)},
                                {f32(s.q, layout), lse_spec(s)});
    const Buffer o = to_layout(got[0], Layout::plain);
    for (int64_t i = 0; i < s.q.elements(); ++i)  // scores to 600 are rounded by 3e-5
      ASSERT_NEAR(o.as<float>()[i], expected[0].as<float>()[i], 2e-4) << kernel;
    for (int64_t i = 0; i < lse_spec(s).shape.elements(); ++i)
      ASSERT_NEAR(got[1].as<float>()[i], expected[1].as<float>()[i], 2e-4) << kernel;
  }
}

// Of scores that lie up to 120 below the largest, on every instruction set; within an ulp with fused multiply-add, two without.
TEST(Attention, ExponentialsOfScoresAreRight) {
  constexpr int64_t kScores = 96;
  alignas(64) float scores[kScores * kPanel], most[kPanel], sum[kPanel], shrink[kPanel];
  for (const int64_t bits : supported_targets()) {
    set_cpu_target(bits);
    const std::string target = cpu_target_name(bits);
    std::mt19937 random(7);
    for (int64_t column = 0; column < kPanel; ++column) {
      scores[column] = 0;
      for (int64_t i = 1; i < kScores; ++i)
        scores[i * kPanel + column] =
            std::uniform_real_distribution<float>(column < 16 ? -1.0f : -120.0f, 0)(random);
      most[column] = column < 8 ? -std::numeric_limits<float>::infinity() : -0.5f;
      sum[column] = 2;
    }
    scores[kPanel] = -std::numeric_limits<float>::infinity();
    scores[kPanel + 1] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> given(scores, scores + kScores * kPanel);
    softmax_tile(scores, kScores, 1, {most, sum, shrink});
    EXPECT_EQ(scores[kPanel], 0) << target;
    EXPECT_TRUE(std::isnan(scores[kPanel + 1])) << target;
    for (int64_t column = 0; column < kPanel; ++column) {
      if (column == 1) continue;  // its largest score is unknown
      double total = 2 * (column < 8 ? 0 : std::exp(-0.5));
      for (int64_t i = 0; i < kScores; ++i) {
        const float x = given[static_cast<size_t>(i * kPanel + column)], e = scores[i * kPanel + column];
        total += e;
        if (x < -87)
          EXPECT_EQ(e, 0) << target << " " << x;
        else
          EXPECT_NEAR(e / std::exp(double{x}), 1, 2.4e-7) << target << " " << x;
      }
      EXPECT_EQ(most[column], 0) << target;
      EXPECT_NEAR(shrink[column], column < 8 ? 0 : std::exp(-0.5), 1e-7) << target;
      EXPECT_NEAR(sum[column] / total, 1, 1e-6)
          << target;  // 96 roundings of 6e-8 at most, most of which cancel
    }
  }
  set_cpu_target(supported_targets().front());
}

// The same numbers in memory are tokens, or an image in nhwc.
TEST(Attention, TokensAreThePixelsOfAnImageInNhwc) {
  const Shape tokens{2, 15, 12}, image{2, 12, 3, 5};
  const AttentionParams params{.heads = 3, .scale = 0.5f};
  std::mt19937 random(5);
  std::vector<Buffer> x, y;
  for (int i = 0; i < 3; ++i) {
    x.emplace_back(f32(tokens)), y.emplace_back(f32(image, Layout::nhwc));
    fill_uniform(x.back(), random);
    std::copy_n(x.back().as<float>(), tokens.elements(), y.back().as<float>());
  }
  const TensorSpec lse = f32({2, 3, 15});
  const auto of_tokens = run_reference("attention", params, x, {f32(tokens), lse});
  const auto of_images = run_reference("attention", params, y, {f32(image, Layout::nhwc), lse});
  for (size_t o = 0; o < 2; ++o)
    for (int64_t i = 0; i < of_tokens[o].spec().stored_elements(); ++i)
      EXPECT_EQ(of_tokens[o].as<float>()[i], of_images[o].as<float>()[i]) << o << " " << i;
}

// Worked out by hand: the first query sees the first key alone, the second both, alike here.
TEST(Attention, CausalQueriesSeeNoLaterKey) {
  const Buffer q(f32({1, 2, 1})), k(f32({1, 2, 1})), v(f32({1, 2, 1}));
  q.as<float>()[0] = 5, q.as<float>()[1] = 0, k.as<float>()[0] = 1, k.as<float>()[1] = 2;
  v.as<float>()[0] = 3, v.as<float>()[1] = 7;
  const auto out =
      run_reference("attention", AttentionParams{1, 1, true}, {q, k, v}, {f32({1, 2, 1}), f32({1, 1, 2})});
  EXPECT_FLOAT_EQ(out[0].as<float>()[0], 3);
  EXPECT_FLOAT_EQ(out[0].as<float>()[1], 5);
  EXPECT_FLOAT_EQ(out[1].as<float>()[0], 5);
  EXPECT_FLOAT_EQ(out[1].as<float>()[1], std::log(2.0f));
}

// 4,096 queries and keys: their scores are 64 MB a head. A block of them stays, a head's keys and values in rows of whole
// lines, and backward its dk and dv.
TEST(Attention, ScoresAreNeverAllInMemory) {
  const Shape x{1, 4096, 320};
  const TensorSpec t = f32(x), lse = f32({1, 8, 4096});
  const AttentionParams params{.heads = 8, .scale = 1};
  const auto bytes = [&](const char* op, std::vector<TensorSpec> in, std::vector<TensorSpec> out) {
    const KernelRequest request{params, in, out, 1};
    return Registry::builtin().find(op, "tiled", Device::cpu)->make(request)->workspace_bytes();
  };
  EXPECT_LT(bytes("attention", {t, t, t}, {t, lse}), (64 << 10) + 2 * 4096 * 48 * 4);
  EXPECT_LT(bytes("attention_grad", {t, t, t, t, lse, t}, {t, t, t}), (64 << 10) + 2 * 4096 * (48 + 40) * 4);
}

// A sample's bits depend neither on threads nor on the samples beside it.
TEST(Attention, BitsDependNeitherOnThreadsNorOnTheBatch) {
  const Sizes s{{3, 12, 11, 13}, {3, 12, 11, 13}, 2}, one{{1, 12, 11, 13}, {1, 12, 11, 13}, 2};
  const AttentionParams params{.heads = 2, .scale = scale_of(s)};
  std::mt19937 random(4);
  Buffer q(f32(s.q)), k(f32(s.k)), v(f32(s.k)), dout(f32(s.q));
  for (const Buffer& b : {q, k, v, dout}) fill_uniform(b, random);
  const auto run = [&](const std::string& kernel, const Sizes& size, const std::vector<Buffer>& in,
                       int threads) {
    const Layout layout = kernel == "tiled" ? Layout::plain : Layout::nhwc;
    std::vector<Buffer> x;
    for (const Buffer& b : in) x.push_back(to_layout(b, layout));
    const TensorSpec like = f32(size.q, layout);
    auto out = run_kernel("attention", kernel, params, {x[0], x[1], x[2]}, {like, lse_spec(size)}, threads);
    for (const Buffer& b : run_kernel("attention_grad", kernel, params,
                                      {x[0], x[1], x[2], out[0], out[1], x[3]}, {like, like, like}, threads))
      out.push_back(b);
    return out;
  };
  for (const std::string kernel : {"tiled", "tiled_nhwc"}) {
    const auto expected = run(kernel, s, {q, k, v, dout}, 1);
    for (int threads : {2, 3, 5}) {
      const auto got = run(kernel, s, {q, k, v, dout}, threads);
      for (size_t i = 0; i < got.size(); ++i)
        EXPECT_TRUE(std::equal(got[i].as<float>(), got[i].as<float>() + got[i].spec().stored_elements(),
                               expected[i].as<float>()))
            << kernel << " output " << i << ", " << threads << " threads";
    }
    for (int64_t n = 0; n < 3; ++n) {
      std::vector<Buffer> in;
      for (const Buffer& b : {q, k, v, dout}) {
        in.emplace_back(f32(one.q));
        std::copy_n(b.as<float>() + n * one.q.elements(), one.q.elements(), in.back().as<float>());
      }
      const auto got = run(kernel, one, in, 2);
      for (size_t i = 0; i < got.size(); ++i) {
        const int64_t per = got[i].spec().stored_elements();
        EXPECT_TRUE(
            std::equal(got[i].as<float>(), got[i].as<float>() + per, expected[i].as<float>() + n * per))
            << kernel << " output " << i << ", sample " << n;
      }
    }
  }
}

}  // namespace
}  // namespace lockstep::testing::attention_test
