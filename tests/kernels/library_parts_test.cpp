// SPDX-License-Identifier: Apache-2.0
// What libraries leave to our kernels, watched, in both types and layouts, with odd sizes and with several
// blocks.
//
// Tolerances: a sum of at most 4,158 floats in a tree, 2^-24 * log2(4,158) of the sum of their absolutes at
// worst: 3e-3. Activations: erf's 1.5e-7; a bf16 output its own rounding, 2^-9.
#define LOCKSTEP_DEVICE simt_watched
#include "kernels/gpu/library_parts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/core/activate.h"
#include "kernels/core/bf16.h"
#include "kernels/gpu/watch/watch.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing::library_parts_test {
namespace {

namespace parts = lockstep::simt_watched;

// A buffer of that spec with random numbers, and watched.
struct Watched {
  Watched(TensorSpec s, unsigned seed) : buffer(s), allowed(buffer.data(), s.bytes(), "tensor") {
    std::mt19937 random(seed);
    const Buffer values({DType::f32, s.shape, s.layout});
    fill_uniform(values, random);
    const Buffer as = converted(values, s.dtype);
    std::copy_n(as.as<std::byte>(), s.bytes(), buffer.as<std::byte>());
  }
  float at(int64_t n, int64_t i) const {
    const int64_t k = buffer.spec().offset(n, i);
    return buffer.spec().dtype == DType::bf16 ? float(buffer.as<bf16>()[k]) : buffer.as<float>()[k];
  }
  Buffer buffer;
  gpu_watch::Allocation allowed;
};

void expect_clean(const Watched& w) {
  for (const auto& f : gpu_watch::take_findings()) ADD_FAILURE() << f.text();
  EXPECT_TRUE(w.buffer.sentinels_intact());
}

const std::vector<TensorSpec> kOutputs = [] {
  std::vector<TensorSpec> all;
  for (DType t : {DType::f32, DType::bf16}) {
    for (Layout l : {Layout::plain, Layout::nhwc})
      for (const Shape& s :
           {Shape{3, 5, 7, 3}, Shape{2, 40, 4, 4}, Shape{7, 1, 20, 20}, Shape{8, 3, 1, 5}, Shape{0, 3, 2, 2}})
        all.push_back({t, s, l});
    all.push_back({t, {300, 7}});
    all.push_back({t, {1, 64}});
  }
  return all;
}();

TEST(LibraryParts, BiasAndActivationEndAConvolution) {
  for (const TensorSpec& s : kOutputs)
    for (Activation a :
         {Activation::none, Activation::relu, Activation::silu, Activation::gelu, Activation::quick_gelu})
      for (bool with_bias : {false, true}) {
        SCOPED_TRACE(s.text() + " " + name(a));
        const Watched y(s, 1), before(s, 1), bias({DType::f32, {1, s.shape[1]}}, 2);
        parts::add_bias_and_activate(y.buffer.view(), with_bias ? bias.buffer.as<float>() : nullptr, a,
                                     nullptr);
        expect_clean(y);
        const int64_t pixels = s.shape.elements_from(2);
        for (int64_t n = 0; n < s.shape[0]; ++n)
          for (int64_t i = 0; i < s.shape.elements_from(1); ++i) {
            const double expected =
                activate(a, before.at(n, i) + (with_bias ? double{bias.at(0, i / pixels)} : 0.0));
            ASSERT_NEAR(y.at(n, i), expected,
                        1e-6 + (s.dtype == DType::bf16 ? 0x1p-8 * std::abs(expected) : 0));
          }
      }
}

// A divergence must show: cuBLASLt's relu would make it 0.
TEST(LibraryParts, ReluKeepsNan) {
  const Watched y({DType::f32, {1, 5}}, 1);
  y.buffer.as<float>()[3] = NAN;
  parts::add_bias_and_activate(y.buffer.view(), nullptr, Activation::relu, nullptr);
  expect_clean(y);
  EXPECT_TRUE(std::isnan(y.at(0, 3)));
}

TEST(LibraryParts, BiasGradientsAreSumsOverSamplesAndPixels) {
  std::vector<TensorSpec> all = kOutputs;
  for (DType t : {DType::f32, DType::bf16}) {  // several slices, of numbers one by one and of whole vectors
    all.push_back({t, {3, 2, 33, 42}});
    all.push_back({t, {3, 2, 32, 43}});
    all.push_back({t, {3, 33, 31, 33}, Layout::nhwc});
    all.push_back({t, {3, 72, 31, 33}, Layout::nhwc});
  }
  for (const TensorSpec& s : all) {
    SCOPED_TRACE(s.text());
    const Watched dy(s, 1), db({DType::f32, {1, s.shape[1]}}, 2),
        workspace({DType::f32, {1, parts::bias_grad_workspace_bytes(s) / 4}}, 3);
    parts::bias_grad(dy.buffer.view(), db.buffer.as<float>(), workspace.buffer.data(), nullptr);
    expect_clean(db);
    EXPECT_TRUE(workspace.buffer.sentinels_intact());
    const int64_t pixels = s.shape.elements_from(2);
    for (int64_t c = 0; c < s.shape[1]; ++c) {
      double expected = 0;
      for (int64_t n = 0; n < s.shape[0]; ++n)
        for (int64_t i = 0; i < pixels; ++i) expected += dy.at(n, c * pixels + i);
      ASSERT_NEAR(db.at(0, c), expected, 3e-3) << c;
    }
  }
}

TEST(LibraryParts, WeightGradientsComeBackInPyTorchsOrder) {
  for (DType t : {DType::f32, DType::bf16})
    for (Layout l : {Layout::plain, Layout::nhwc}) {
      const TensorSpec s{t, {5, 7, 3, 2}, l};
      SCOPED_TRACE(s.text());
      const Watched from(s, 1), to({DType::f32, s.shape}, 2);
      for (const bool add : {false, true}) {
        parts::unpack_weight_grad(from.buffer.view(), to.buffer.as<float>(), add, nullptr);
        expect_clean(to);
        for (int64_t o = 0; o < 5; ++o)
          for (int64_t i = 0; i < 42; ++i) ASSERT_EQ(to.at(o, i), (add ? 2 : 1) * from.at(o, i));
      }
    }
}

TEST(LibraryParts, NoSamplesGiveZeroGradients) {
  const Watched dw({DType::f32, {1, 777}}, 1);
  parts::set_to_zero(dw.buffer.view(), nullptr);
  expect_clean(dw);
  for (int64_t i = 0; i < 777; ++i) ASSERT_EQ(dw.at(0, i), 0);
}

}  // namespace
}  // namespace lockstep::testing::library_parts_test
