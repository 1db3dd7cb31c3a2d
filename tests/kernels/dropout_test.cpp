// SPDX-License-Identifier: Apache-2.0
// Tolerance 2e-7: kept numbers are multiplied by a rounded 1/(1 - p), the reference divides in double. Which
// numbers are dropped must fit exactly; inputs stay away from zero, so a wrong one is off by all of itself.
#include "kernels/dropout/dropout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/core/cpu_target.h"
#include "kernels/core/step_state.h"
#include "kernels/random/philox.h"
#include "tests/support/combinations.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing::dropout_test {
namespace {

const TensorSpec kState{DType::u8, {static_cast<int64_t>(sizeof(StepState))}, Layout::plain};

Buffer state_buffer(int64_t step = 11, int64_t first_sample = 1000, uint64_t seed = 0xfeedbeef12345678) {
  const Buffer b(kState);
  const StepState s{.seed = seed, .step = step, .first_sample = first_sample, .global_samples = 64};
  std::memcpy(b.data(), &s, sizeof s);
  return b;
}

Buffer ones(const Shape& shape, Layout layout = Layout::plain) {
  const Buffer b(f32(shape));
  std::fill_n(b.as<float>(), b.spec().stored_elements(), 1.0f);
  return to_layout(b, layout, 1);
}

std::vector<KernelCase> cases() {
  std::vector<KernelCase> all;
  const Shape shapes[] = {{1, 50},       {15, 320},       {16, 3},       {17, 67},        {33, 128},
                          {0, 8},        {1, 1, 1, 1},    {2, 20, 4, 4}, {16, 17, 3, 5},  {17, 70, 2, 3},
                          {33, 5, 9, 9}, {3, 65, 13, 11}, {0, 3, 4, 4},  {17, 10, 12, 12}};
  uint32_t layer = 0;
  for (const Shape& shape : shapes)
    for (bool channelwise : {false, true})
      for (float p : {0.5f, 0.1f}) {
        KernelCase c{.op = "dropout", .label = shape.text(), .in = {f32(shape), kState}, .out = {f32(shape)}};
        c.params = DropoutParams{.p = p, .channelwise = channelwise, .layer = layer++ % 3};
        c.batch_in = {0}, c.batch_out = {0}, c.gradient_out = {0};
        c.tolerance = 2e-7;
        c.in_place = {{0, 0}};
        c.fill = [](std::vector<Buffer>& in, std::mt19937& random) {
          fill_uniform(in[0], random, 0.5f, 1);
          in[1] = state_buffer();
        };
        all.push_back(c);
      }
  return all;
}
const bool added = add_kernel_cases(cases);

// The mask is fixed, so the op is linear and its gradient is itself.
std::vector<GradientCase> gradients() {
  std::vector<GradientCase> all;
  for (bool channelwise : {false, true}) {
    const Shape shape = {5, 6, 3, 3};
    const DropoutParams p{.p = 0.3f, .channelwise = channelwise};
    const auto run = [=](const Buffer& x) {
      return run_reference("dropout", p, {x, state_buffer()}, {f32(shape)});
    };
    all.push_back(
        {.label = fmt::format("dropout channelwise={}", channelwise),
         .ops = {"dropout"},
         .inputs = {ones(shape)},
         .loss = [run](const std::vector<Buffer>& in) { return weighted_sum(run(in[0]), 4); },
         .gradient =
             [=](const std::vector<Buffer>&) { return run(weighted_sum_gradient({f32(shape)}, 4)[0]); }});
  }
  return all;
}
const bool added_gradients = add_gradient_cases(gradients);

Buffer drop(const std::string& kernel, const Buffer& x, const DropoutParams& p, const Buffer& state,
            int threads = 1) {
  return run_kernel("dropout", kernel, p, {x, state}, {x.spec()}, threads)[0];
}

int64_t zeros(const Buffer& b) {
  int64_t n = 0;
  for (int64_t i = 0; i < b.spec().stored_elements(); ++i) n += b.as<float>()[i] == 0;
  return n;
}

// One draw by hand: which word of which counter decides.
TEST(Dropout, DrawsWhatTheHeaderSays) {
  const Buffer x = ones({3, 4, 5, 2});
  const DropoutParams whole{.p = 0.4f, .layer = 7}, channels{.p = 0.4f, .channelwise = true, .layer = 7};
  const Buffer a = drop("reference", x, whole, state_buffer()),
               b = drop("reference", x, channels, state_buffer());
  for (int64_t n = 0; n < 3; ++n)
    for (int64_t e = 0; e < 40; ++e) {
      const auto word = [&](int64_t i) {
        return random4(0xfeedbeef12345678, stream::kDropout + 7, 11, 1000 + n, i / 4).x[i % 4];
      };
      EXPECT_EQ(a.as<float>()[n * 40 + e] != 0, uniform01(word(e)) >= 0.4f);
      EXPECT_EQ(b.as<float>()[n * 40 + e] != 0, uniform01(word(e / 10)) >= 0.4f);
    }
}

// The bits of the fast kernel don't depend on layout, threads or instruction set.
TEST(Dropout, SameBitsEverywhere) {
  const int64_t initial = cpu_target();
  const Shape shape = {33, 19, 7, 6};
  const Buffer x(f32(shape));
  std::mt19937 random(8);
  fill_uniform(x, random);
  for (bool channelwise : {false, true}) {
    const DropoutParams p{.p = 0.3f, .channelwise = channelwise};
    const Buffer expected = drop("highway", x, p, state_buffer());
    for (int64_t target : targets_to_test())
      for (Layout layout : {Layout::plain, Layout::nhwc, Layout::lanes})
        for (int threads : thread_counts()) {
          set_cpu_target(target);
          const Buffer y =
              to_layout(drop("highway", to_layout(x, layout), p, state_buffer(), threads), Layout::plain);
          EXPECT_EQ(std::memcmp(y.data(), expected.data(), static_cast<size_t>(y.spec().bytes())), 0)
              << cpu_target_name(target) << " " << name(layout) << " " << threads;
        }
  }
  set_cpu_target(initial);
}

// Two ranks with first_sample 0 and 21 draw what one rank draws for all 40 samples.
TEST(Dropout, SameBitsHoweverRanksCutTheBatch) {
  const Shape inner = {40, 5, 3, 3};
  const int64_t per = inner.elements_from(1);
  for (const char* kernel : {"reference", "highway"})
    for (Layout layout : {Layout::plain, Layout::nhwc, Layout::lanes})
      for (bool channelwise : {false, true}) {
        const DropoutParams p{.p = 0.5f, .channelwise = channelwise};
        const auto plain = [&](int64_t first, int64_t n) {
          const Buffer x = ones({n, 5, 3, 3}, layout);
          return to_layout(drop(kernel, x, p, state_buffer(2, first)), Layout::plain);
        };
        const Buffer whole = plain(0, 40), first = plain(0, 21), second = plain(21, 19);
        EXPECT_EQ(std::memcmp(whole.as<float>(), first.as<float>(), static_cast<size_t>(21 * per * 4)), 0);
        EXPECT_EQ(
            std::memcmp(whole.as<float>() + 21 * per, second.as<float>(), static_cast<size_t>(19 * per * 4)),
            0);
      }
}

TEST(Dropout, ZeroKeepsAllAndOneDropsAll) {
  Buffer x = ones({17, 6, 5, 5});
  x.as<float>()[40] = std::numeric_limits<float>::quiet_NaN();  // dropped is 0, whatever it was
  for (const char* kernel : {"reference", "highway"})
    for (Layout layout : {Layout::plain, Layout::nhwc, Layout::lanes})
      for (bool channelwise : {false, true}) {
        const Buffer in = to_layout(x, layout, 1);
        const auto run = [&](float p) {
          return to_layout(drop(kernel, in, {.p = p, .channelwise = channelwise}, state_buffer()),
                           Layout::plain);
        };
        const Buffer kept = run(0), dropped = run(1);
        EXPECT_EQ(std::memcmp(kept.data(), x.data(), static_cast<size_t>(x.spec().bytes())), 0);
        EXPECT_EQ(zeros(dropped), dropped.spec().stored_elements());
      }
}

// Dropped counts are binomial: within 5 standard deviations, in all and of pairs of neighbours.
TEST(Dropout, RateAndIndependence) {
  const int64_t n = 64, k = 4096;
  for (float p : {0.1f, 0.5f, 0.9f}) {
    const Buffer y = drop("highway", ones({n, k}), {.p = p}, state_buffer());
    const auto count = static_cast<double>(n * k);
    EXPECT_NEAR(static_cast<double>(zeros(y)), count * p, 5 * std::sqrt(count * p * (1 - p)));
    for (int64_t apart : {int64_t{1}, int64_t{4}, k}) {  // next element, next counter, next sample
      int64_t both = 0;
      const int64_t pairs = n * k - apart;
      for (int64_t i = 0; i < pairs; ++i) both += y.as<float>()[i] == 0 && y.as<float>()[i + apart] == 0;
      const double expected = static_cast<double>(pairs) * p * p;
      // Pairs that share an element are dependent, which at most triples the variance.
      EXPECT_NEAR(static_cast<double>(both), expected, 5 * std::sqrt(3 * expected)) << "apart " << apart;
    }
  }
}

TEST(Dropout, StepSeedAndLayerChangeTheMask) {
  const Buffer x = ones({4, 256});
  const Buffer base = drop("highway", x, {}, state_buffer());
  const Buffer others[] = {drop("highway", x, {}, state_buffer(12)),
                           drop("highway", x, {}, state_buffer(11, 1000, 5)),
                           drop("highway", x, {.layer = 1}, state_buffer())};
  for (const Buffer& o : others) {
    int64_t same = 0;
    for (int64_t i = 0; i < 1024; ++i) same += (o.as<float>()[i] == 0) == (base.as<float>()[i] == 0);
    EXPECT_NEAR(static_cast<double>(same), 512, 5 * 16);  // 5 standard deviations of 1,024 fair coins
  }
}

}  // namespace
}  // namespace lockstep::testing::dropout_test
