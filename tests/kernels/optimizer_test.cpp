// SPDX-License-Identifier: Apache-2.0
#include "kernels/optimizer/optimizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "kernels/core/bf16.h"
#include "kernels/core/cpu_target.h"
#include "kernels/core/step_state.h"
#include "tests/support/combinations.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing::optimizer_test {
namespace {

using Kind = OptimizerParams::Kind;
constexpr int64_t kLength = 5000;
const TensorSpec kStep{DType::u8, {sizeof(StepState)}, Layout::plain};

// Every length of a rest, gaps of 1 to 15, a frozen one, an empty one, one large enough for several threads.
std::vector<OptimizerSegment> segments(double weight_decay, int64_t length) {
  std::vector<OptimizerSegment> s;
  int64_t at = 0;
  for (int64_t n = 0; n <= 40; ++n, at = (at + 15) / 16 * 16) {
    s.push_back({at, at + n, 1, weight_decay, n == 7 || n == 33});
    at += n;
  }
  s.push_back({at, length - 3, 0.5, 0, false});
  return s;
}

std::vector<std::pair<std::string, OptimizerParams>> optimizers() {
  std::vector<std::pair<std::string, OptimizerParams>> all;
  const auto add = [&](std::string label, OptimizerParams p, double weight_decay, int64_t length = kLength) {
    p.segments = segments(weight_decay, length);
    all.emplace_back(label, p);
  };
  add("sgd", {}, 0);
  add("sgd decay clip", {.clip_norm = 0.5}, 0.01);
  add("momentum", {.momentum = 0.9}, 1e-4);
  add("momentum dampening", {.momentum = 0.9, .dampening = 0.2}, 0);
  add("nesterov", {.momentum = 0.8, .nesterov = true, .clip_norm = 3}, 0);
  add("adam", {.kind = Kind::adam}, 0);
  add("adam decay clip", {.kind = Kind::adam, .clip_norm = 0.5}, 0.01);
  add("adamw", {.kind = Kind::adamw, .beta1 = 0.95, .beta2 = 0.98, .eps = 1e-6}, 0.01);
  add("momentum ema", {.momentum = 0.9, .ema = true}, 0);
  add("sgd half", {.half = true}, 0);
  add("adamw ema half", {.kind = Kind::adamw, .ema = true, .half = true}, 0.01);
  return all;
}

void fill_step(const Buffer& b, int64_t step, float lr) {
  *b.as<StepState>() = StepState{.step = step, .lr = lr, .ema_gain = 0.125f};
}

// params, grads, step_state, metrics, norm, state..., ema, half
std::vector<TensorSpec> step_inputs(const OptimizerParams& p, int64_t length) {
  std::vector<TensorSpec> in{f32({length}), f32({length}), kStep, f32({2}), f32({1})};
  for (int i = 0; i < p.state_count() + (p.ema ? 1 : 0); ++i) in.push_back(f32({length}));
  if (p.half) in.push_back({DType::bf16, {length}, Layout::plain});
  return in;
}
std::vector<TensorSpec> step_outputs(const OptimizerParams& p, int64_t length) {
  auto in = step_inputs(p, length);
  in.erase(in.begin() + 1, in.begin() + 5);
  return in;
}
void fill_bf16(const Buffer& b, float value) {
  std::fill_n(b.as<bf16>(), b.spec().stored_elements(), bf16(value));
}

std::vector<KernelCase> kernel_cases() {
  std::vector<KernelCase> all;
  for (const auto& [label, p] : optimizers())
    for (int64_t step : {0, 5})
      for (bool finite : {true, false}) {
        KernelCase c;
        c.op = "optimizer_step";
        c.label = fmt::format("{} step {}{}", label, step, finite ? "" : " loss NaN");
        c.params = p;
        c.in = step_inputs(p, kLength), c.out = step_outputs(p, kLength);
        c.in_place = {{0, 0}};
        for (int o = 1; o < static_cast<int>(c.out.size()); ++o) c.in_place.emplace_back(4 + o, o);
        c.tolerance = 5e-7;  // a handful of f32 roundings
        c.fill = [=](std::vector<Buffer>& in, std::mt19937& random) {
          for (size_t i = 0; i < in.size(); ++i)
            if (in[i].spec().dtype == DType::bf16)
              fill_bf16(in[i], 0.75f);
            else if (i != 2)
              fill_uniform(in[i], random, i == 6 ? 0.1f : -1);  // v is positive
          fill_step(in[2], step, 0.01f);
          in[3].as<float>()[0] = finite ? 3 : std::numeric_limits<float>::quiet_NaN();
          in[4].as<float>()[0] = 2;
        };
        all.push_back(c);
      }
  for (int64_t length : {1500, 100000}) {
    KernelCase c;
    c.op = "grad_norm", c.label = std::to_string(length);
    c.params = OptimizerParams{.segments = segments(0, length)};
    c.in = {f32({length})}, c.out = {f32({1})};
    c.tolerance = 1e-7;  // in double: at most the last rounding differs
    all.push_back(c);
  }
  return all;
}
const bool cases = add_kernel_cases(kernel_cases);
const bool step_flows_nothing =
    declare_no_gradient("optimizer_step", "the end of a step; nothing flows back");
const bool norm_flows_nothing =
    declare_no_gradient("grad_norm", "the norm is a constant to the step it clips");

uint64_t fnv1a(uint64_t hash, const View& v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits = 0;
    const auto size = static_cast<size_t>(size_of(v.spec.dtype));
    std::memcpy(&bits, v.as<std::byte>() + static_cast<size_t>(i) * size, size);
    hash = (hash ^ bits) * 0x100000001b3;
  }
  return hash;
}

// Ten steps in place, gradients anew and the norm taken each time; hash of parameters and state.
uint64_t ten_steps(const OptimizerParams& p, int64_t length, int threads) {
  const Registry& registry = Registry::builtin();
  std::mt19937 random(11);
  std::vector<Buffer> in;
  for (const auto& s : step_inputs(p, length)) in.emplace_back(s);
  fill_uniform(in[0], random);
  in[3].as<float>()[0] = 1;
  for (size_t i = 5; i < in.size(); ++i)
    std::memset(in[i].data(), 0, static_cast<size_t>(in[i].spec().bytes()));
  std::vector<View> views, out{in[0].view()}, norm_in{in[1].view()}, norm_out{in[4].view()};
  for (const auto& b : in) views.push_back(b.view());
  for (size_t i = 5; i < in.size(); ++i) out.push_back(in[i].view());
  std::vector<TensorSpec> norm_specs{in[1].spec()}, none;
  auto norm = registry.find("grad_norm", "simd", Device::cpu)->make({p, norm_specs, none, threads});
  const DType dtype = p.half ? DType::bf16 : DType::f32;
  auto step = registry.find("optimizer_step", "simd", Device::cpu, dtype)
                  ->make({p, step_inputs(p, length), none, threads});
  std::vector<double> workspace(static_cast<size_t>(norm->workspace_bytes() / 8 + 1));
  for (int64_t t = 0; t < 10; ++t) {
    fill_uniform(in[1], random, -0.1f, 0.1f);
    fill_step(in[2], t, 0.1f);
    norm->run({norm_in, norm_out, workspace.data()});
    step->run({views, out, nullptr});
  }
  uint64_t hash = 0xcbf29ce484222325;
  for (const auto& v : out) hash = fnv1a(hash, v, length);
  return fnv1a(hash, in[4].view(), 1);
}

// A change here changes what every job computes: results of earlier versions can no longer be repeated.
TEST(Optimizer, BitsOfTenStepsArePinned) {
  const std::map<std::string, uint64_t> pinned{
      {"sgd", 0x9a61d343d407919e},
      {"sgd decay clip", 0x4acaa4339ff17287},
      {"momentum", 0x35f4ac7866480bf8},
      {"momentum dampening", 0xe86a476eb307178c},
      {"nesterov", 0x2480e9306eb0c58b},
      {"adam", 0x062e40b4a0b18f09},
      {"adam decay clip", 0x2fad9f4cade560d4},
      {"adamw", 0xa2e89c7aa589cb6e},
      {"momentum ema", 0xa4c822b24cd4906a},
      {"sgd half", 0x33e4c6ffb2126fd7},
      {"adamw ema half", 0x7440e91bce9ff819},
  };
  const int64_t initial = cpu_target(), length = 100000;  // enough for three threads
  for (auto [label, p] : optimizers()) {
    p.segments = segments(p.segments[1].weight_decay, length);
    for (int64_t target : targets_to_test())
      for (int threads : {1, 3}) {
        set_cpu_target(target);
        const auto it = pinned.find(label);
        const uint64_t hash = ten_steps(p, length, threads);
        EXPECT_EQ(hash, it == pinned.end() ? 0 : it->second)
            << fmt::format("{} 0x{:016x} ", label, hash) << threads << " threads " << cpu_target_name(target);
      }
  }
  set_cpu_target(initial);
}

// The header's formulas in double from start to end, nothing rounded between steps.
TEST(Optimizer, ThirtyStepsFollowTheFormulas) {
  for (const auto& [label, p] : optimizers()) {
    std::mt19937 random(21);
    std::vector<Buffer> in;
    for (const auto& s : step_inputs(p, kLength)) in.emplace_back(s);
    fill_uniform(in[0], random);
    in[3].as<float>()[0] = 1;
    for (size_t i = 5; i < in.size(); ++i)
      std::memset(in[i].data(), 0, static_cast<size_t>(in[i].spec().bytes()));
    std::vector<double> average(kLength);
    std::vector<double> x(in[0].as<float>(), in[0].as<float>() + kLength), m(kLength), v(kLength);
    for (int64_t t = 1; t <= 30; ++t) {
      fill_uniform(in[1], random, -0.2f, 0.3f);
      fill_step(in[2], t - 1, 0.01f);
      double squares = 0;
      for (const auto& s : p.segments)
        for (int64_t i = s.begin; i < s.end && !s.frozen; ++i)
          squares += std::pow(double{in[1].as<float>()[i]}, 2);
      in[4] = run_kernel("grad_norm", "simd", p, {in[1]}, {f32({1})})[0];
      EXPECT_NEAR(*in[4].as<float>(), std::sqrt(squares), 1e-7 * std::sqrt(squares));
      const auto out = run_kernel("optimizer_step", "simd", p, in, step_outputs(p, kLength), 2);
      in[0] = out[0];
      for (size_t i = 1; i < out.size(); ++i) in[4 + i] = out[i];
      const double clip = p.clip_norm > 0 ? std::min(1.0, p.clip_norm / (std::sqrt(squares) + 1e-6)) : 1;
      const double td = static_cast<double>(t);
      for (const auto& s : p.segments)
        for (int64_t k = s.begin; k < s.end && !s.frozen; ++k) {
          const size_t i = static_cast<size_t>(k);
          const double lr = double{0.01f} * s.lr_scale;
          double g = double{in[1].as<float>()[k]} * clip;
          if (p.kind == Kind::adamw)
            x[i] -= lr * s.weight_decay * x[i];
          else
            g += s.weight_decay * x[i];
          if (p.kind == Kind::sgd) {
            m[i] = t == 1 ? g : p.momentum * m[i] + (1 - p.dampening) * g;
            x[i] -= lr * (p.momentum == 0 ? g : p.nesterov ? g + p.momentum * m[i] : m[i]);
          } else {
            m[i] = p.beta1 * m[i] + (1 - p.beta1) * g;
            v[i] = p.beta2 * v[i] + (1 - p.beta2) * g * g;
            const double mhat = m[i] / (1 - std::pow(p.beta1, td)), vhat = v[i] / (1 - std::pow(p.beta2, td));
            x[i] -= lr * mhat / (std::sqrt(vhat) + p.eps);
          }
          average[i] = 0.875 * average[i] + 0.125 * x[i];
        }
    }
    double error = 0, norm = 0;
    for (size_t i = 0; i < kLength; ++i) {
      error += std::pow(double{in[0].as<float>()[i]} - x[i], 2);
      norm += x[i] * x[i];
    }
    // Thirty roundings of a parameter to f32 are 30 * 6e-8 at worst, some 2e-7 as a random walk.
    EXPECT_LT(std::sqrt(error / norm), 4e-7) << label;
    if (p.ema) {
      error = norm = 0;
      for (const auto& s : p.segments)
        for (int64_t k = s.begin; k < s.end && !s.frozen; ++k) {
          error +=
              std::pow(double{in[4 + p.ema_output()].as<float>()[k]} - average[static_cast<size_t>(k)], 2);
          norm += std::pow(average[static_cast<size_t>(k)], 2);
        }
      EXPECT_LT(std::sqrt(error / norm), 4e-7) << label;
    }
    if (!p.half) continue;
    for (const auto& s : p.segments)
      for (int64_t k = s.begin; k < s.end && !s.frozen; ++k) {
        ASSERT_EQ(in[4 + p.half_output()].as<bf16>()[k].bits, bf16(in[0].as<float>()[k]).bits) << label;
      }
  }
}

TEST(Optimizer, FrozenSegmentsAndGapsStay) {
  OptimizerParams p{.kind = Kind::adam, .ema = true, .half = true};
  p.segments = {{0, 5, 1, 0, false}, {16, 40, 1, 0, true}, {48, 49, 1, 0, false}};
  std::mt19937 random(3);
  std::vector<Buffer> in;
  for (const auto& s : step_inputs(p, 64)) in.emplace_back(s);
  for (size_t i : {0u, 1u, 5u, 6u, 7u}) fill_uniform(in[i], random, 0.5f, 1);
  fill_bf16(in[8], 5);
  in[3].as<float>()[0] = 1;
  fill_step(in[2], 0, 0.1f);
  for (const std::string kernel : {"reference", "simd"}) {
    const auto out = run_kernel("optimizer_step", kernel, p, in, step_outputs(p, 64));
    ASSERT_EQ(out.size(), 5u);
    for (size_t o = 0; o < out.size(); ++o) {
      const Buffer before = converted(in[o == 0 ? 0 : o + 4], DType::f32),
                   after = converted(out[o], DType::f32);
      for (int64_t i = 0; i < 64; ++i) {
        const bool live = i < 5 || i == 48;
        EXPECT_EQ(after.as<float>()[i] != before.as<float>()[i], live)
            << kernel << " output " << o << " element " << i;
      }
    }
  }
}

TEST(Optimizer, NothingChangesWhereTheLossIsNotFinite) {
  const OptimizerParams p{
      .kind = Kind::adamw, .ema = true, .half = true, .segments = {{0, 100, 1, 0.1, false}}};
  std::mt19937 random(3);
  std::vector<Buffer> in;
  for (const auto& s : step_inputs(p, 100)) in.emplace_back(s);
  for (size_t i : {0u, 1u, 5u, 6u, 7u}) fill_uniform(in[i], random, 0.5f, 1);
  fill_bf16(in[8], 5);
  fill_step(in[2], 0, 0.1f);
  for (const std::string kernel : {"reference", "simd"})
    for (float loss : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      in[3].as<float>()[0] = loss;
      const auto out = run_kernel("optimizer_step", kernel, p, in, step_outputs(p, 100));
      for (size_t o = 0; o < out.size(); ++o)
        EXPECT_EQ(0, std::memcmp(out[o].data(), in[o == 0 ? 0 : o + 4].data(),
                                 static_cast<size_t>(out[o].spec().bytes())))
            << kernel << " " << o;
    }
}

TEST(Optimizer, SegmentOutsideTheArrayIsRefused) {
  const OptimizerParams p{.segments = {{0, 101, 1, 0, false}}};
  std::vector<Buffer> in{Buffer(f32({100}))};
  EXPECT_THROW(run_kernel("grad_norm", "simd", p, in, {f32({1})}), Error);
}

}  // namespace
}  // namespace lockstep::testing::optimizer_test
