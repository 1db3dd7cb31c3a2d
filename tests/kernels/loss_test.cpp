// SPDX-License-Identifier: Apache-2.0
#include "kernels/loss/loss.h"

#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/core/cpu_target.h"
#include "kernels/core/step_state.h"
#include "tests/support/combinations.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing::loss_test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
const TensorSpec kStep{DType::u8, {sizeof(StepState)}, Layout::plain};
TensorSpec labels_spec(int64_t n) { return {DType::i32, {n}, Layout::plain}; }

void fill_labels(const Buffer& b, std::mt19937& random, int64_t classes) {
  for (int64_t i = 0; i < b.spec().shape[0]; ++i)
    b.as<int32_t>()[i] = static_cast<int32_t>(random() % static_cast<uint32_t>(classes));
}
void fill_step(const Buffer& b, int64_t samples) {
  *b.as<StepState>() = StepState{.global_samples = samples};
}

std::vector<Shape> shapes() {
  return {{1, 1},   {1, 10},  {2, 3},   {15, 10},   {16, 10}, {17, 7},
          {33, 16}, {64, 31}, {3, 100}, {40, 1000}, {0, 10}};
}

std::vector<KernelCase> kernel_cases() {
  std::vector<KernelCase> all;
  for (const Shape& s : shapes())
    for (float range : {1.0f, 30.0f, 1e4f}) {
      const TensorSpec x = f32(s);
      const std::string label = fmt::format("{} up to {}", s.text(), range);
      KernelCase c;
      c.op = "log_softmax", c.label = label, c.params = NoParams{}, c.in = {x}, c.out = {x};
      c.batch_in = c.batch_out = {0};
      c.fill = [=](std::vector<Buffer>& in, std::mt19937& random) {
        fill_uniform(in[0], random, -range, range);
      };
      c.tolerance = 1e-6;  // Log's 4 ulps, a sum of 1,000 f32 terms
      all.push_back(c);
      c.op = "log_softmax_grad", c.in = {x, x}, c.batch_in = {0, 1}, c.gradient_in = {1},
      c.gradient_out = {0};
      c.fill = [=](std::vector<Buffer>& in, std::mt19937& random) {
        fill_uniform(in[0], random, -range, 0), fill_uniform(in[1], random);
      };
      c.tolerance = 4e-6;  // a sum of 1,000 f32 terms of both signs
      all.push_back(c);
      for (const LossParams& p :
           {LossParams{}, LossParams{.label_smoothing = 0.1f}, LossParams{.from_log_probs = true},
            LossParams{.label_smoothing = 0.3f, .from_log_probs = true}}) {
        KernelCase e;
        e.op = "cross_entropy", e.label = label, e.params = p, e.in = {x, labels_spec(s[0])},
        e.out = {f32({2})};
        e.batch_in = {0};
        e.tolerance = 2e-6;  // as log_softmax; the smoothed sum adds up to 1,000 f32 terms
        e.fill = [=](std::vector<Buffer>& in, std::mt19937& random) {
          fill_uniform(in[0], random, -range, p.from_log_probs ? 0 : range);
          fill_labels(in[1], random, s[1]);
          if (in.size() > 2) fill_step(in[2], 128);
        };
        all.push_back(e);
        e.op = "cross_entropy_grad", e.in.push_back(kStep), e.out = {x}, e.batch_out = e.gradient_out = {0};
        all.push_back(e);
      }
    }
  // NaN, infinities and ties of one sample, which a sum over several would hide.
  for (const auto& [values, label] :
       std::vector<std::pair<std::vector<float>, int32_t>>{{{1, kNaN, 2}, 0},
                                                           {{1, kNaN, 2}, 1},
                                                           {{kNaN, kNaN, kNaN}, 0},
                                                           {{1, kInf, 2}, 0},
                                                           {{-kInf, -kInf, -kInf}, 0},
                                                           {{-kInf, 0, 0}, 0},
                                                           {{-kInf, 0, 0}, 1},
                                                           {{0, 3, 3}, 1},
                                                           {{0, 3, 3}, 2}})
    for (int64_t classes : {3, 40})
      for (bool log_probs : {false, true}) {
        KernelCase e;
        e.op = "cross_entropy", e.params = LossParams{.from_log_probs = log_probs};
        e.label = fmt::format("{} of {} classes, label {}", fmt::join(values, " "), classes, label);
        e.in = {f32({1, classes}), labels_spec(1)}, e.out = {f32({2})}, e.batch_in = {0};
        e.tolerance = 2e-6;
        e.fill = [=, values = values, label = label](std::vector<Buffer>& in, std::mt19937&) {
          for (int64_t c = 0; c < classes; ++c)
            in[0].as<float>()[c] = values[static_cast<size_t>(c * 3 / classes)];
          in[1].as<int32_t>()[0] = static_cast<int32_t>((label * classes + 2) / 3);
          if (in.size() > 2) fill_step(in[2], 1);
        };
        all.push_back(e);
        e.op = "cross_entropy_grad", e.in.push_back(kStep), e.out = {e.in[0]},
        e.batch_out = e.gradient_out = {0};
        all.push_back(e);
      }
  return all;
}
const bool cases = add_kernel_cases(kernel_cases);

const bool gradients = add_gradient_cases([] {
  std::vector<GradientCase> all;
  const TensorSpec x = f32({5, 4});
  std::mt19937 random(2);
  Buffer at(x), labels(labels_spec(5)), step(kStep);
  fill_uniform(at, random, -2, 2), fill_labels(labels, random, 4), fill_step(step, 1);
  GradientCase c;
  c.inputs = {at};
  c.label = "log_softmax";
  c.ops = {"log_softmax", "log_softmax_grad"};
  c.loss = [=](const std::vector<Buffer>& in) {
    return weighted_sum(run_reference("log_softmax", NoParams{}, in, {x}), 1);
  };
  c.gradient = [=](const std::vector<Buffer>& in) {
    const Buffer y = run_reference("log_softmax", NoParams{}, in, {x})[0];
    return run_reference("log_softmax_grad", NoParams{}, {y, weighted_sum_gradient({x}, 1)[0]}, {x});
  };
  all.push_back(c);
  for (float smoothing : {0.0f, 0.2f})
    for (bool log_probs : {false, true}) {
      const LossParams p{smoothing, log_probs};
      c.label = "cross_entropy " + p.text();
      c.ops = {"cross_entropy", "cross_entropy_grad"};
      c.loss = [=](const std::vector<Buffer>& in) {
        return double{run_reference("cross_entropy", p, {in[0], labels}, {f32({2})})[0].as<float>()[0]};
      };
      c.gradient = [=](const std::vector<Buffer>& in) {
        return run_reference("cross_entropy_grad", p, {in[0], labels, step}, {x});
      };
      all.push_back(c);
    }
  return all;
});

struct Metrics {
  float loss, correct;
};

// One row through every kernel and instruction set, which must agree on what is asked.
template <class F>
void each_kernel(F check) {
  const int64_t initial = cpu_target();
  for (const std::string kernel : {"reference", "plain", "lanes"})
    for (int64_t target : targets_to_test()) {
      set_cpu_target(target);
      SCOPED_TRACE(kernel + " " + cpu_target_name(target));
      check(kernel, kernel == "lanes" ? Layout::lanes : Layout::plain);
    }
  set_cpu_target(initial);
}

Buffer row(const std::vector<float>& x) {
  Buffer b(f32({1, static_cast<int64_t>(x.size())}));
  std::copy(x.begin(), x.end(), b.as<float>());
  return b;
}
Buffer label(int32_t l) {
  Buffer b(labels_spec(1));
  *b.as<int32_t>() = l;
  return b;
}
Metrics cross_entropy(const std::string& kernel, Layout layout, const std::vector<float>& x, int32_t l,
                      const LossParams& p = {}) {
  const Buffer m =
      run_kernel("cross_entropy", kernel, p, {to_layout(row(x), layout), label(l)}, {f32({2})})[0];
  return {m.as<float>()[0], m.as<float>()[1]};
}

TEST(Loss, NaNLogitsGiveNaNLossAndAreNeverCorrect) {
  each_kernel([](const std::string& kernel, Layout layout) {
    for (int32_t l : {0, 1, 19}) {
      std::vector<float> x(20, 1.0f);
      x[1] = kNaN;
      const Metrics m = cross_entropy(kernel, layout, x, l);
      EXPECT_TRUE(std::isnan(m.loss)) << m.loss;
      EXPECT_EQ(m.correct, 0);
      Buffer step(kStep);
      fill_step(step, 1);
      const Buffer dx = run_kernel("cross_entropy_grad", kernel, LossParams{},
                                   {to_layout(row(x), layout), label(l), step}, {f32({1, 20}, layout)})[0];
      const Buffer y = run_kernel("log_softmax", kernel, NoParams{}, {to_layout(row(x), layout)},
                                  {f32({1, 20}, layout)})[0];
      for (int64_t c = 0; c < 20; ++c) {
        EXPECT_TRUE(std::isnan(dx.as<float>()[dx.spec().offset(0, c)]));
        EXPECT_TRUE(std::isnan(y.as<float>()[y.spec().offset(0, c)]));
      }
    }
  });
}

TEST(Loss, InfiniteLogits) {
  each_kernel([](const std::string& kernel, Layout layout) {
    EXPECT_TRUE(std::isnan(cross_entropy(kernel, layout, {1, kInf, 2}, 0).loss));
    EXPECT_TRUE(std::isnan(cross_entropy(kernel, layout, {-kInf, -kInf}, 0).loss));
    EXPECT_EQ(cross_entropy(kernel, layout, {-kInf, 0}, 0).loss, kInf);
    EXPECT_EQ(cross_entropy(kernel, layout, {-kInf, 0}, 1).loss, 0);
    EXPECT_EQ(cross_entropy(kernel, layout, {-kInf, 0}, 1, {.from_log_probs = true}).loss, 0);
  });
}

TEST(Loss, FirstOfEqualMaximaCounts) {
  each_kernel([](const std::string& kernel, Layout layout) {
    const std::vector<float> x{0, 3, 1, 3};
    EXPECT_EQ(cross_entropy(kernel, layout, x, 1).correct, 1);
    EXPECT_EQ(cross_entropy(kernel, layout, x, 3).correct, 0);
    EXPECT_EQ(cross_entropy(kernel, layout, x, 2).correct, 0);
  });
}

TEST(Loss, ClosedForms) {
  each_kernel([](const std::string& kernel, Layout layout) {
    // Equal logits: log C, whatever their size and the smoothing.
    for (float x : {0.0f, 1e4f, -1e4f})
      for (float e : {0.0f, 0.1f}) {
        const float loss =
            cross_entropy(kernel, layout, std::vector<float>(10, x), 3, {.label_smoothing = e}).loss;
        EXPECT_NEAR(loss, std::log(10.0), 1e-6);  // Log's 4 ulps
      }
    EXPECT_EQ(cross_entropy(kernel, layout, {5}, 0).loss, 0);  // one class
    // Logits 1e4 apart: the loss is their distance.
    EXPECT_EQ(cross_entropy(kernel, layout, {1e4f, 0}, 1).loss, 1e4f);
    EXPECT_EQ(cross_entropy(kernel, layout, {1e4f, 0}, 0).loss, 0);
  });
}

TEST(Loss, BitsDoNotDependOnThreads) {
  std::mt19937 random(3);
  Buffer x(f32({333, 41})), l(labels_spec(333));
  fill_uniform(x, random, -5, 5), fill_labels(l, random, 41);
  for (Layout layout : {Layout::plain, Layout::lanes}) {
    const Buffer lx = to_layout(x, layout);
    const auto run = [&](int threads) {
      const Buffer m =
          run_kernel("cross_entropy", name(layout), LossParams{}, {lx, l}, {f32({2})}, threads)[0];
      return std::pair(m.as<float>()[0], m.as<float>()[1]);
    };
    for (int threads : {2, 3}) EXPECT_EQ(run(threads), run(1)) << name(layout);
  }
}

}  // namespace
}  // namespace lockstep::testing::loss_test
