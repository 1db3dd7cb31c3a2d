// SPDX-License-Identifier: Apache-2.0
// diffusion_noise, weighted_mse, label_dropout and posterior_sample: against the reference, and the same bits however a batch
// is cut.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/core/bf16.h"
#include "kernels/core/cpu_target.h"
#include "kernels/core/step_state.h"
#include "kernels/diffusion/label_dropout.h"
#include "kernels/diffusion/noise.h"
#include "kernels/diffusion/posterior.h"
#include "kernels/diffusion/weighted_mse.h"
#include "kernels/random/normal.h"
#include "kernels/random/philox.h"
#include "tests/support/combinations.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing::diffusion_test {
namespace {

const TensorSpec kState{DType::u8, {sizeof(StepState)}, Layout::plain};
constexpr uint64_t kSeed = 0xfeedbeef12345678;
constexpr int64_t kStep = 11;
TensorSpec i32(int64_t n) { return {DType::i32, {n}, Layout::plain}; }

Buffer state_buffer(int64_t first_sample = 1000, int64_t step = kStep, uint64_t seed = kSeed) {
  const Buffer b(kState);
  *b.as<StepState>() = {.seed = seed, .step = step, .first_sample = first_sample, .global_samples = 64};
  return b;
}

std::vector<double> cosine_schedule(int64_t timesteps) {
  std::vector<double> ac;
  for (int64_t t = 0; t < timesteps; ++t)
    ac.push_back(std::pow(std::cos(static_cast<double>(t) / static_cast<double>(timesteps) * 1.57), 2));
  return ac;
}

DiffusionNoiseParams noise_params(Prediction prediction, double gamma = 0, int64_t timesteps = 1000) {
  return {cosine_schedule(timesteps), prediction, gamma};
}
constexpr Prediction kPredictions[] = {Prediction::epsilon, Prediction::v_prediction, Prediction::sample};

std::vector<TensorSpec> noise_outputs(const TensorSpec& x0) {
  TensorSpec target = x0;
  target.dtype = DType::f32;
  return {x0, target, i32(x0.shape[0]), f32({x0.shape[0]})};
}

const bool no_noise_gradient = declare_no_gradient("diffusion_noise", "its input is data, not an activation");
const bool no_posterior_gradient =
    declare_no_gradient("posterior_sample", "the moments are a frozen network's");
const bool no_label_gradient = declare_no_gradient("label_dropout", "labels are whole numbers");

std::vector<KernelCase> cases() {
  std::vector<KernelCase> all;
  const Shape shapes[] = {{1, 1, 1, 1},   {2, 3, 5, 7},  {15, 2, 3, 3}, {16, 1, 4, 4},
                          {17, 3, 8, 8},  {33, 4, 5, 2}, {0, 3, 4, 4},  {3, 5, 13, 11},
                          {2, 3, 32, 32}, {5, 70},       {17, 6}};
  size_t turn = 0;
  for (const Shape& shape : shapes) {
    const TensorSpec x = f32(shape), weights = f32({shape[0]});
    KernelCase c{.op = "diffusion_noise", .in = {x, kState}, .out = noise_outputs(x), .batch_in = {0}};
    c.batch_out = c.gradient_out = {0, 1};
    c.bf16_in = c.bf16_out = {0};
    // Coefficients, products and sums are rounded once each (6e-8), of numbers up to the largest.
    c.tolerance = 3e-7;
    c.fill = [](std::vector<Buffer>& in, std::mt19937& random) {
      fill_uniform(in[0], random);
      in[1] = state_buffer();
    };
    for (Prediction p : kPredictions) {
      c.params = noise_params(p, turn % 2 == 0 ? 0 : 5, turn % 3 == 0 ? 1000 : 7);
      c.label = shape.text();
      all.push_back(c);
      ++turn;
    }

    KernelCase m{.op = "weighted_mse", .label = shape.text(), .params = NoParams{}, .in = {x, x, weights}};
    m.out = {f32({2})}, m.batch_in = {0, 1}, m.bf16_in = {0};
    m.tolerance =
        2e-7;  // differences are rounded once, by 6e-8 of the largest, and all of them enter with one sign
    m.fill = [](std::vector<Buffer>& in, std::mt19937& random) {
      fill_uniform(in[0], random), fill_uniform(in[1], random), fill_uniform(in[2], random, 0, 2);
      if (in.size() > 3) in[3] = state_buffer();
    };
    all.push_back(m);
    Shape twice = shape;
    twice.set(1, 2 * shape[1]);
    KernelCase s{.op = "posterior_sample", .label = shape.text(), .params = PosteriorParams{0.18215f}};
    s.in = {f32(twice), kState}, s.out = {x}, s.batch_in = {0}, s.batch_out = s.gradient_out = {0};
    // exp in float is off by 1e-7 of itself, at most e^1.25 times 5 deviations here; sum and product are rounded once each.
    s.tolerance = 5e-7;
    s.fill = [](std::vector<Buffer>& in, std::mt19937& random) {
      fill_uniform(in[0], random, -2.5, 2.5);
      in[1] = state_buffer();
    };
    all.push_back(s);
    m.op = "weighted_mse_grad", m.in.push_back(kState), m.out = {x}, m.batch_out = m.gradient_out = {0};
    m.tolerance = 3e-7;  // three roundings
    all.push_back(m);
  }
  for (int64_t n : {0, 1, 5, 130, 300})
    for (float p : {0.0f, 0.1f, 1.0f}) {
      KernelCase c{
          .op = "label_dropout", .label = fmt::format("{}", n), .in = {i32(n), kState}, .out = {i32(n)}};
      c.params = LabelDropoutParams{p, 10};
      c.fill = [](std::vector<Buffer>& in, std::mt19937& random) {
        for (int64_t i = 0; i < in[0].spec().shape[0]; ++i)
          in[0].as<int32_t>()[i] = static_cast<int32_t>(random() % 10);
        in[1] = state_buffer();
      };
      all.push_back(c);
    }
  return all;
}
const bool added = add_kernel_cases(cases);

const bool added_gradients = add_gradient_cases([] {
  const TensorSpec x = f32({3, 2, 3, 3});
  std::mt19937 random(5);
  Buffer pred(x), target(x), weights(f32({3})), state = state_buffer();
  fill_uniform(pred, random), fill_uniform(target, random), fill_uniform(weights, random, 0, 2);
  state.as<StepState>()->global_samples = 1;  // the sum's gradient
  GradientCase c{.label = "weighted_mse", .ops = {"weighted_mse", "weighted_mse_grad"}, .inputs = {pred}};
  c.loss = [=](const std::vector<Buffer>& in) {
    return double{
        run_reference("weighted_mse", NoParams{}, {in[0], target, weights}, {f32({2})})[0].as<float>()[0]};
  };
  c.gradient = [=](const std::vector<Buffer>& in) {
    return run_reference("weighted_mse_grad", NoParams{}, {in[0], target, weights, state}, {x});
  };
  return std::vector<GradientCase>{c};
});

bool same_bits(const Buffer& a, const Buffer& b) {
  return a.spec() == b.spec() && std::memcmp(a.data(), b.data(), static_cast<size_t>(a.spec().bytes())) == 0;
}

Buffer uniform(const TensorSpec& spec, unsigned seed) {
  const Buffer b(f32(spec.shape));
  std::mt19937 random(seed);
  fill_uniform(b, random);
  return b;
}

// Samples [first, first + count) of a plain tensor.
Buffer slice(const Buffer& b, int64_t first, int64_t count) {
  TensorSpec s = b.spec();
  s.shape.set(0, count);
  const Buffer part(s);
  const int64_t per = s.shape.elements_from(1) * size_of(s.dtype);
  std::memcpy(part.data(), b.as<std::byte>() + first * per, static_cast<size_t>(count * per));
  return part;
}

// Outputs in the plain layout.
std::vector<Buffer> add_noise(const std::string& kernel, const Buffer& x0, const DiffusionNoiseParams& p,
                              int64_t first_sample, Layout layout = Layout::plain, int threads = 1) {
  const Buffer x = to_layout(x0, layout);
  std::vector<Buffer> out;
  for (const Buffer& b : run_kernel("diffusion_noise", kernel, p, {x, state_buffer(first_sample)},
                                    noise_outputs(x.spec()), threads))
    out.push_back(to_layout(b, Layout::plain));
  return out;
}

TEST(DiffusionNoise, DrawsWhatTheHeaderSays) {
  const Buffer x0 = uniform(f32({19, 3, 5, 6}), 1);
  for (const char* kernel : {"reference", "highway"})
    for (Layout layout : {Layout::plain, Layout::nhwc, Layout::lanes}) {
      const auto out = add_noise(kernel, x0, noise_params(Prediction::epsilon), 77, layout);
      for (int64_t n = 0; n < 19; ++n) {
        EXPECT_EQ(out[2].as<int32_t>()[n], draw_timestep(kSeed, kStep, 77 + n, 1000));
        EXPECT_EQ(out[2].as<int32_t>()[n],
                  static_cast<int32_t>(
                      uint64_t{random4(kSeed, stream::kTimestep, kStep, 77 + n, 0).x[0]} * 1000 >> 32));
        std::vector<float> eps(90);
        draw_noise(kSeed, kStep, 77 + n, 90, eps.data());
        EXPECT_EQ(std::memcmp(eps.data(), out[1].as<float>() + n * 90, 90 * sizeof(float)), 0)
            << kernel << name(layout);
        for (int64_t e : {0, 1, 2, 3, 57, 89})
          EXPECT_EQ(eps[static_cast<size_t>(e)],
                    normal4(random4(kSeed, stream::kNoise, kStep, 77 + n, e / 4)).x[e % 4]);
      }
    }
}

TEST(DiffusionNoise, SameBitsInEveryLayoutThreadCountAndInstructionSet) {
  const int64_t initial = cpu_target();
  const Buffer x0 = uniform(f32({35, 3, 15, 14}), 2);
  for (Prediction prediction : kPredictions) {
    const DiffusionNoiseParams p = noise_params(prediction, 5);
    const auto expected = add_noise("highway", x0, p, 5);
    for (int64_t target : targets_to_test())
      for (Layout layout : {Layout::plain, Layout::nhwc, Layout::lanes})
        for (int threads : {1, 3}) {
          set_cpu_target(target);
          const auto out = add_noise("highway", x0, p, 5, layout, threads);
          for (size_t o = 0; o < 4; ++o)
            EXPECT_TRUE(same_bits(out[o], expected[o])) << name(prediction) << " output " << o << " "
                                                        << cpu_target_name(target) << " " << name(layout);
        }
  }
  set_cpu_target(initial);
}

TEST(DiffusionNoise, SameBitsHoweverRanksCutTheBatch) {
  const Buffer x0 = uniform(f32({40, 2, 5, 5}), 3);
  for (const char* kernel : {"reference", "highway"})
    for (Layout layout : {Layout::plain, Layout::nhwc, Layout::lanes}) {
      const DiffusionNoiseParams p = noise_params(Prediction::v_prediction, 5);
      const auto whole = add_noise(kernel, x0, p, 100, layout),
                 first = add_noise(kernel, slice(x0, 0, 21), p, 100, layout),
                 second = add_noise(kernel, slice(x0, 21, 19), p, 121, layout);
      for (size_t o = 0; o < 4; ++o) {
        EXPECT_TRUE(same_bits(slice(whole[o], 0, 21), first[o]))
            << kernel << " " << name(layout) << " output " << o;
        EXPECT_TRUE(same_bits(slice(whole[o], 21, 19), second[o]))
            << kernel << " " << name(layout) << " output " << o;
      }
    }
}

// A v prediction that is right gives x0 and the noise back (Salimans, Ho: appendix D): whatever the schedule.
TEST(DiffusionNoise, VelocityGivesTheDataBack) {
  const Buffer x0 = uniform(f32({30, 1, 4, 4}), 4);
  const DiffusionNoiseParams p = noise_params(Prediction::v_prediction);
  const auto out = add_noise("highway", x0, p, 0);
  for (int64_t n = 0; n < 30; ++n) {
    const double ac = p.alphas_cumprod[static_cast<size_t>(out[2].as<int32_t>()[n])];
    for (int64_t i = n * 16; i < n * 16 + 16; ++i) {
      const double x_t = double{out[0].as<float>()[i]}, v = double{out[1].as<float>()[i]};
      EXPECT_NEAR(std::sqrt(ac) * x_t - std::sqrt(1 - ac) * v, x0.as<float>()[i],
                  2e-6);  // of numbers up to 7
    }
  }
}

// Chi-squared over 50 timesteps of 20,000 samples: mean 49, standard deviation 9.9; 5 sigma.
TEST(DiffusionNoise, TimestepsAreUniform) {
  std::vector<int> count(50);
  for (int64_t sample = 0; sample < 20000; ++sample) {
    const int32_t t = draw_timestep(9, 4, sample, 50);
    ASSERT_TRUE(t >= 0 && t < 50);
    ++count[static_cast<size_t>(t)];
  }
  double chi = 0;
  for (int c : count) chi += (c - 400.0) * (c - 400.0) / 400.0;
  EXPECT_NEAR(chi, 49, 5 * 9.9);
}

// One timestep schedules; by hand from snr = ac / (1 - ac).
TEST(DiffusionNoise, Weights) {
  const auto weight = [](Prediction prediction, double gamma, double ac) {
    float w[2];
    int i = 0;
    for (const char* kernel : {"reference", "highway"})
      w[i++] =
          add_noise(kernel, uniform(f32({1, 1, 1, 1}), 1), {{ac}, prediction, gamma}, 0)[3].as<float>()[0];
    EXPECT_EQ(w[0], w[1]);
    return w[0];
  };
  for (Prediction p : kPredictions) EXPECT_EQ(weight(p, 0, 0.9), 1);
  // snr 9, above gamma 5; snr 1, below.
  EXPECT_FLOAT_EQ(weight(Prediction::epsilon, 5, 0.9), 5.0f / 9);
  EXPECT_FLOAT_EQ(weight(Prediction::v_prediction, 5, 0.9), 0.5f);
  EXPECT_FLOAT_EQ(weight(Prediction::sample, 5, 0.9), 5);
  EXPECT_FLOAT_EQ(weight(Prediction::epsilon, 5, 0.5), 1);
  EXPECT_FLOAT_EQ(weight(Prediction::v_prediction, 5, 0.5), 0.5f);
  EXPECT_FLOAT_EQ(weight(Prediction::sample, 5, 0.5), 1);
  // Nothing but noise, and none: limits.
  EXPECT_EQ(weight(Prediction::epsilon, 5, 0), 1);
  EXPECT_EQ(weight(Prediction::v_prediction, 5, 0), 0);
  EXPECT_EQ(weight(Prediction::sample, 5, 0), 0);
  EXPECT_EQ(weight(Prediction::epsilon, 5, 1), 0);
  EXPECT_EQ(weight(Prediction::v_prediction, 5, 1), 0);
  EXPECT_EQ(weight(Prediction::sample, 5, 1), 5);
}

TEST(DiffusionNoise, TextTellsSchedulesApart) {
  const DiffusionNoiseParams p = noise_params(Prediction::epsilon);
  DiffusionNoiseParams other = p;
  EXPECT_EQ(p.text(), other.text());
  other.alphas_cumprod[500] = std::nextafter(other.alphas_cumprod[500], 0);
  EXPECT_NE(p.text(), other.text());
}

Buffer gradient(const std::string& kernel, const std::vector<Buffer>& in, Layout layout, int threads) {
  const Buffer pred = to_layout(in[0], layout), target = to_layout(in[1], layout);
  return to_layout(run_kernel("weighted_mse_grad", kernel, NoParams{}, {pred, target, in[2], in[3]},
                              {pred.spec()}, threads)[0],
                   Layout::plain);
}

TEST(WeightedMse, SameBitsWithAnyThreadCountAndInstructionSet) {
  const int64_t initial = cpu_target();
  const Shape shape = {37, 3, 29, 31};
  const std::vector<Buffer> in = {uniform(f32(shape), 1), uniform(f32(shape), 2), uniform(f32({37}), 3),
                                  state_buffer()};
  const Buffer expected = gradient("highway", in, Layout::plain, 1);
  for (Layout layout : {Layout::plain, Layout::nhwc, Layout::lanes}) {
    const std::vector<Buffer> laid = {to_layout(in[0], layout, 0.25f), to_layout(in[1], layout, 0.5f), in[2]};
    const auto loss = [&](int threads) {
      return run_kernel("weighted_mse", "highway", NoParams{}, laid, {f32({2})}, threads)[0];
    };
    const Buffer once = loss(1);
    EXPECT_EQ(once.as<float>()[1], 37);
    for (int64_t target : targets_to_test())
      for (int threads : thread_counts({1, 2, 3, 5})) {
        set_cpu_target(target);
        EXPECT_TRUE(same_bits(loss(threads), once))
            << name(layout) << " " << cpu_target_name(target) << " " << threads;
        EXPECT_TRUE(same_bits(gradient("highway", in, layout, threads), expected)) << name(layout);
      }
    set_cpu_target(initial);
  }
  for (int64_t cut : {5, 16, 27}) {
    const auto part = [&](int64_t first, int64_t count) {
      return gradient(
          "highway",
          {slice(in[0], first, count), slice(in[1], first, count), slice(in[2], first, count), in[3]},
          Layout::plain, 1);
    };
    EXPECT_TRUE(same_bits(part(0, cut), slice(expected, 0, cut)));
    EXPECT_TRUE(same_bits(part(cut, 37 - cut), slice(expected, cut, 37 - cut)));
  }
}

// What a bf16 kernel reads it widens, what it writes it rounds: between them it is the f32 kernel, bit for
// bit.
TEST(Diffusion, Bf16KernelsAreTheF32OnesBetweenConversions) {
  for (Layout layout : {Layout::plain, Layout::nhwc, Layout::lanes}) {
    const TensorSpec f = f32({19, 3, 7, 5}, layout);
    const Buffer narrow = converted(to_layout(uniform(f32(f.shape), 1), layout), DType::bf16),
                 wide = converted(narrow, DType::f32);
    const Buffer target = to_layout(uniform(f32(f.shape), 2), layout), weights = uniform(f32({19}), 3),
                 state = state_buffer();
    const auto check = [&](const std::string& op, const Params& params, const std::vector<Buffer>& others,
                           std::vector<TensorSpec> out) {
      const auto run = [&](const Buffer& first) {
        std::vector<Buffer> in = {first};
        in.insert(in.end(), others.begin(), others.end());
        return run_kernel(op, "highway", params, in, out, 2);
      };
      const auto expected = run(wide);
      if (out[0].layout == layout && out[0].shape == f.shape) out[0].dtype = DType::bf16;
      const auto got = run(narrow);
      for (size_t o = 0; o < out.size(); ++o)
        EXPECT_TRUE(same_bits(
            got[o], out[o].dtype == DType::bf16 ? converted(expected[o], DType::bf16) : expected[o]))
            << op << " output " << o << " " << name(layout);
    };
    check("diffusion_noise", noise_params(Prediction::v_prediction, 5), {state}, noise_outputs(f));
    check("weighted_mse", NoParams{}, {target, weights}, {f32({2})});
    check("weighted_mse_grad", NoParams{}, {target, weights, state}, {f});
  }
}

TEST(WeightedMse, ClosedForm) {
  Buffer pred(f32({2, 1, 1, 2})), target(f32({2, 1, 1, 2})), weights(f32({2}));
  const float p[] = {1, 2, 0, 4}, t[] = {0, 4, 0, 1}, w[] = {0.5f, 2};
  std::copy_n(p, 4, pred.as<float>()), std::copy_n(t, 4, target.as<float>()),
      std::copy_n(w, 2, weights.as<float>());
  for (const char* kernel : {"reference", "highway"}) {
    const Buffer m = run_kernel("weighted_mse", kernel, NoParams{}, {pred, target, weights}, {f32({2})})[0];
    EXPECT_EQ(m.as<float>()[0], 0.5f * (1 + 4) / 2 + 2.0f * 9 / 2);
    EXPECT_EQ(m.as<float>()[1], 2);
    const Buffer d =
        gradient(kernel, {pred, target, weights, state_buffer()}, Layout::plain, 1);  // 64 samples in all
    const float expected[] = {0.5f / 64, -1.0f / 64, 0, 6.0f / 64};
    for (int i = 0; i < 4; ++i) EXPECT_EQ(d.as<float>()[i], expected[i]);
    pred.as<float>()[1] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(
        std::isnan(run_kernel("weighted_mse", kernel, NoParams{}, {pred, target, weights}, {f32({2})})[0]
                       .as<float>()[0]));
    pred.as<float>()[1] = p[1];
  }
}

// Variances beyond the clamp, and samples counted from another first one.
TEST(PosteriorSample, ClosedForm) {
  const int64_t elements = 6;
  Buffer moments(f32({2, 2, 2, 3}));
  for (int64_t n = 0; n < 2; ++n)
    for (int64_t e = 0; e < elements; ++e) {
      float* m = moments.as<float>() + n * 2 * elements;
      m[e] = static_cast<float>(e) / 8;
      m[elements + e] = e == 0 ? -100.0f : e == 1 ? 1000.0f : static_cast<float>(e);
    }
  const Buffer out = run_kernel("posterior_sample", "reference", PosteriorParams{0.5f},
                                {moments, state_buffer(70)}, {f32({2, 1, 2, 3})})[0];
  for (int64_t n = 0; n < 2; ++n)
    for (int64_t e = 0; e < elements; ++e) {
      const double eps = normal4(random4(kSeed, stream::kPosterior, kStep, 70 + n, e / 4)).x[e % 4];
      const double log_variance = e == 0 ? -30 : e == 1 ? 20 : static_cast<double>(e);
      const double expected = 0.5 * (static_cast<double>(e) / 8 + std::exp(log_variance / 2) * eps);
      EXPECT_FLOAT_EQ(out.as<float>()[n * elements + e], static_cast<float>(expected)) << n << " " << e;
    }
}

Buffer drop_labels(const Buffer& labels, float p, int64_t first_sample, int64_t step = kStep) {
  return run_kernel("label_dropout", "reference", LabelDropoutParams{p, 10},
                    {labels, state_buffer(first_sample, step)}, {labels.spec()})[0];
}

TEST(LabelDropout, DrawsWhatTheHeaderSaysAndAsOftenAsAsked) {
  const int64_t n = 20000;
  const Buffer labels(i32(n));
  for (int64_t i = 0; i < n; ++i) labels.as<int32_t>()[i] = static_cast<int32_t>(i % 10);
  const Buffer out = drop_labels(labels, 0.1f, 40), other_step = drop_labels(labels, 0.1f, 40, kStep + 1);
  int64_t dropped = 0, both = 0;
  for (int64_t i = 0; i < n; ++i) {
    const bool drop = uniform01(random4(kSeed, stream::kLabelDropout, kStep, 40 + i, 0).x[0]) < 0.1f;
    EXPECT_EQ(out.as<int32_t>()[i], drop ? 10 : i % 10);
    dropped += drop, both += drop && other_step.as<int32_t>()[i] == 10;
  }
  EXPECT_NEAR(static_cast<double>(dropped), 2000, 5 * std::sqrt(1800.0));
  EXPECT_NEAR(static_cast<double>(both), 200, 5 * std::sqrt(198.0));
  // Two ranks.
  EXPECT_TRUE(same_bits(slice(out, 0, 7001), drop_labels(slice(labels, 0, 7001), 0.1f, 40)));
  EXPECT_TRUE(same_bits(slice(out, 7001, 12999), drop_labels(slice(labels, 7001, 12999), 0.1f, 7041)));
  EXPECT_TRUE(same_bits(drop_labels(labels, 0, 0), labels));
  EXPECT_EQ(drop_labels(labels, 1, 0).as<int32_t>()[n - 1], 10);
}

}  // namespace
}  // namespace lockstep::testing::diffusion_test
