// SPDX-License-Identifier: Apache-2.0
#include "tests/support/kernel_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <set>

#include "kernels/core/bf16.h"
#include "kernels/core/cpu_target.h"
#include "tests/support/combinations.h"
#include "tests/support/typed_case.h"

namespace lockstep::testing {
namespace {

constexpr size_t kSentinelBytes = 128;
constexpr auto kSentinel = std::byte{0xA5};

std::vector<std::function<std::vector<KernelCase>()>>& case_makers() {
  static std::vector<std::function<std::vector<KernelCase>()>> makers;
  return makers;
}
std::vector<std::function<std::vector<GradientCase>()>>& gradient_makers() {
  static std::vector<std::function<std::vector<GradientCase>()>> makers;
  return makers;
}
std::map<std::string, std::string>& no_gradient() {
  static std::map<std::string, std::string> ops;
  return ops;
}

constexpr double kBf16Rounding = 0x1p-8;

// The f32 ones of those named, or else of those that follow the batch.
std::vector<int> bf16_tensors(const std::optional<std::vector<int>>& named, const std::vector<int>& batch,
                              const std::vector<TensorSpec>& specs) {
  std::vector<int> all = named.value_or(batch);
  std::erase_if(all, [&](int i) { return specs[static_cast<size_t>(i)].dtype != DType::f32; });
  return all;
}

template <class T>
T element(const Buffer& b, int64_t n, int64_t inner) {
  return b.as<T>()[b.spec().offset(n, inner)];
}

// Calls f(n, inner) for every logical element; a scalar or vector counts as one sample of its elements.
template <class F>
void for_each_element(const TensorSpec& spec, F f) {
  const int64_t n = spec.shape.rank() ? spec.shape[0] : 1, per = spec.shape.elements_from(1);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < per; ++j) f(i, j);
}

template <class F>
void for_each_padding_lane(const TensorSpec& spec, F f) {
  if (spec.layout != Layout::lanes) return;
  const int64_t n = spec.shape[0], per = spec.shape.elements_from(1),
                full = (n + kLanes - 1) / kLanes * kLanes;
  for (int64_t i = n; i < full; ++i)
    for (int64_t j = 0; j < per; ++j) f(i, j);
}

// NaN equals NaN, infinities of one sign are equal, all else within `allowed`.
bool close(double got, double expected, double allowed) {
  if (std::isnan(expected)) return std::isnan(got);
  if (std::isinf(expected) || std::isinf(got)) return got == expected;
  return std::abs(got - expected) <= allowed;
}

struct Variant {
  const KernelInfo* kernel;
  Layout layout;
  int threads;
  int64_t target;
  bool in_place;
};

// Runs one variant; false where the kernel declines.
bool run_variant(const TypedCase& typed, const Variant& v) {
  const KernelCase& c = typed.c;
  const std::string where =
      fmt::format("{} threads={} target={}", description(typed, *v.kernel, v.layout, v.in_place), v.threads,
                  cpu_target_name(v.target));
  const std::vector<Buffer> in = inputs_in(typed, v.layout);
  auto outputs = outputs_in(typed, v.layout, v.in_place, in);
  if (!outputs) return false;
  std::vector<Buffer>& out = *outputs;
  const Views in_views(in), out_views(out);
  const auto kernel = v.kernel->make({c.params, in_views.specs, out_views.specs, v.threads});
  if (!kernel) return false;

  const Buffer workspace({DType::u8, {kernel->workspace_bytes()}, Layout::plain});
  std::memset(workspace.data(), 0xFF, static_cast<size_t>(kernel->workspace_bytes()));
  std::vector<std::vector<std::byte>> before;
  for (const auto& b : in) before.emplace_back(b.as<std::byte>(), b.as<std::byte>() + b.spec().bytes());
  kernel->run({in_views.views, out_views.views, workspace.data()});

  EXPECT_TRUE(workspace.sentinels_intact()) << where << ": wrote outside its workspace";
  for (size_t i = 0; i < in.size(); ++i) {
    EXPECT_TRUE(in[i].sentinels_intact()) << where << ": wrote outside input " << i;
    EXPECT_TRUE(overwritten(typed, i, v.in_place) ||
                std::equal(before[i].begin(), before[i].end(), in[i].as<std::byte>()))
        << where << ": changed input " << i;
  }
  for (size_t o = 0; o < out.size(); ++o) {
    EXPECT_TRUE(out[o].sentinels_intact()) << where << ": wrote outside output " << o;
    out[o] = converted(out[o], typed.expected[o].spec().dtype);
    check_output(typed, o, out[o], where);
    if (out[o].spec().dtype != DType::f32) continue;
    const bool zero = contains(c.gradient_out, o);
    int bad = 0;
    for_each_padding_lane(out[o].spec(), [&](int64_t n, int64_t i) {
      const float x = element<float>(out[o], n, i);
      bad += zero ? x != 0 : !std::isfinite(x);
    });
    EXPECT_EQ(bad, 0) << where << " output " << o << ": padding lanes not " << (zero ? "zero" : "finite");
  }
  return true;
}

}  // namespace

bool contains(const std::vector<int>& list, size_t i) {
  return std::find(list.begin(), list.end(), static_cast<int>(i)) != list.end();
}

Buffer converted(const Buffer& b, DType to) {
  TensorSpec s = b.spec();
  if (s.dtype == to) return b;
  s.dtype = to;
  Buffer r(s);
  for (int64_t i = 0; i < s.stored_elements(); ++i)
    if (to == DType::bf16)
      r.as<bf16>()[i] = bf16(b.as<float>()[i]);
    else
      r.as<float>()[i] = float(b.as<bf16>()[i]);
  return r;
}

TypedCase typed_case(const KernelCase& c, DType dtype) {
  TypedCase t{
      .c = c, .dtype = dtype, .bf16_in = {}, .bf16_out = {}, .inputs = make_inputs(c), .expected = {}};
  if (dtype == DType::bf16) {
    t.bf16_in = bf16_tensors(c.bf16_in, c.batch_in, c.in);
    t.bf16_out = bf16_tensors(c.bf16_out, c.batch_out, c.out);
    for (int i : t.bf16_in) {
      Buffer& x = t.inputs[static_cast<size_t>(i)];
      x = converted(converted(x, DType::bf16), DType::f32);
    }
  }
  t.expected = run_reference(c.op, c.params, t.inputs, c.out);
  return t;
}

double TypedCase::tolerance(size_t o) const {
  const bool rounded = contains(bf16_out, o) || c.out[o].dtype == DType::bf16;
  return c.tolerance + (dtype == DType::bf16 ? c.bf16_tolerance : 0) + (rounded ? kBf16Rounding : 0);
}

std::vector<KernelCase> all_kernel_cases() {
  std::vector<KernelCase> all;
  for (const auto& make : case_makers())
    for (auto& c : make()) all.push_back(std::move(c));
  return all;
}

std::vector<Buffer> make_inputs(const KernelCase& c) {
  std::mt19937 random(12345);
  std::vector<Buffer> plain;
  for (const auto& s : c.in) {
    plain.emplace_back(s);
    if (c.fill) continue;
    if (s.dtype == DType::f32)
      fill_uniform(plain.back(), random);
    else if (s.dtype == DType::u8)
      for (int64_t i = 0; i < s.stored_elements(); ++i)
        plain.back().as<uint8_t>()[i] = static_cast<uint8_t>(random());
    else
      std::memset(plain.back().data(), 0, static_cast<size_t>(s.bytes()));
  }
  if (c.fill) c.fill(plain, random);
  return plain;
}

bool takes(LayoutClass c, Layout l) {
  switch (c) {
    case LayoutClass::any:
      return true;
    case LayoutClass::plain:
      return l == Layout::plain;
    case LayoutClass::nhwc:
      return l == Layout::nhwc;
    case LayoutClass::lanes:
      return l == Layout::lanes;
  }
  return false;
}

bool has_layout(const KernelCase& c, Layout layout) {
  if (layout == Layout::plain) return true;
  if (c.batch_in.empty() && c.batch_out.empty()) return false;
  if (layout == Layout::lanes) return true;
  // Images, and what belongs to their samples (attention's lse [N, heads, tokens], a norm's statistics [N,
  // 2G]).
  bool images = false;
  for (int i : c.batch_in) images |= c.in[static_cast<size_t>(i)].shape.rank() == 4;
  const auto fits = [](const TensorSpec& s) { return s.shape.rank() >= 2 && s.shape.rank() <= 4; };
  for (int i : c.batch_in) images &= fits(c.in[static_cast<size_t>(i)]);
  for (int o : c.batch_out) images &= fits(c.out[static_cast<size_t>(o)]);
  return images;
}

Layout layout_for(const TensorSpec& s, Layout wanted) {
  return wanted == Layout::nhwc && s.shape.rank() != 4 ? Layout::plain : wanted;
}

void compare(const Buffer& got, const Buffer& expected, double tolerance, const std::string& where) {
  if (got.spec().dtype == DType::bf16 && expected.spec().dtype == DType::bf16)
    return compare(converted(got, DType::f32), converted(expected, DType::f32), tolerance, where);
  const bool integer = got.spec().dtype != DType::f32;
  double largest = 0;
  for_each_element(expected.spec(), [&](int64_t n, int64_t i) {
    if (integer) return;
    const double e = element<float>(expected, n, i);
    if (std::isfinite(e)) largest = std::max(largest, std::abs(e));
  });
  int shown = 0;
  for_each_element(expected.spec(), [&](int64_t n, int64_t i) {
    if (shown >= 3) return;
    bool same = false;
    double g = 0, e = 0;
    switch (got.spec().dtype) {
      case DType::f32:
        g = element<float>(got, n, i), e = element<float>(expected, n, i);
        same = close(g, e, tolerance * (largest + (largest < 1 ? tolerance : 0)));
        break;
      case DType::u8:
        g = element<uint8_t>(got, n, i), e = element<uint8_t>(expected, n, i), same = g == e;
        break;
      case DType::i32:
        g = element<int32_t>(got, n, i), e = element<int32_t>(expected, n, i), same = g == e;
        break;
      case DType::bf16:
        FAIL() << where << ": bf16 beside another type";
    }
    if (same) return;
    ++shown;
    ADD_FAILURE() << where << ": element (" << n << ", " << i << ") is " << g << ", expected " << e
                  << ", largest of the tensor " << largest << ", tolerance " << tolerance;
  });
}

Buffer::Buffer(TensorSpec spec, bool fill_nan) : spec_(spec) {
  const auto bytes = static_cast<size_t>(spec.bytes());
  memory_ = std::make_shared<std::vector<std::byte>>(bytes + 2 * kSentinelBytes + 64, kSentinel);
  if (fill_nan) {
    if (spec.dtype == DType::f32)
      std::fill_n(as<float>(), spec.stored_elements(), std::numeric_limits<float>::quiet_NaN());
    else
      std::memset(data(), spec.dtype == DType::bf16 ? 0xFF : 0xCD, bytes);
  }
}

void* Buffer::data() const {
  std::byte* const first = memory_->data() + kSentinelBytes;
  return first + (64 - reinterpret_cast<uintptr_t>(first) % 64) % 64;
}

bool Buffer::sentinels_intact() const {
  const auto* begin = memory_->data();
  const auto* first = static_cast<const std::byte*>(data());
  const auto* last = first + spec_.bytes();
  for (const auto* p = begin; p != first; ++p)
    if (*p != kSentinel) return false;
  for (const auto* p = last; p != begin + memory_->size(); ++p)
    if (*p != kSentinel) return false;
  return true;
}

bool add_kernel_cases(std::function<std::vector<KernelCase>()> make) {
  case_makers().push_back(std::move(make));
  return true;
}
bool add_gradient_cases(std::function<std::vector<GradientCase>()> make) {
  gradient_makers().push_back(std::move(make));
  return true;
}
bool declare_no_gradient(std::string op, std::string why) {
  no_gradient()[std::move(op)] = std::move(why);
  return true;
}

void fill_uniform(const Buffer& b, std::mt19937& random, float low, float high) {
  // Own scaling: std::uniform_real_distribution differs between libraries.
  for (int64_t i = 0; i < b.spec().stored_elements(); ++i)
    b.as<float>()[i] = low + (high - low) * (static_cast<float>(random() >> 8) * 0x1p-24f);
}

Buffer to_layout(const Buffer& b, Layout layout, float padding) {
  TensorSpec s = b.spec();
  s.layout = layout;
  Buffer r(s);
  const auto size = size_of(s.dtype);
  for_each_element(s, [&](int64_t n, int64_t i) {
    std::memcpy(r.as<std::byte>() + s.offset(n, i) * size, b.as<std::byte>() + b.spec().offset(n, i) * size,
                static_cast<size_t>(size));
  });
  for_each_padding_lane(s, [&](int64_t n, int64_t i) {
    if (s.dtype == DType::f32)
      r.as<float>()[s.offset(n, i)] = padding;
    else
      std::memset(r.as<std::byte>() + s.offset(n, i) * size, 0, static_cast<size_t>(size));
  });
  return r;
}

std::vector<Buffer> run_kernel(const std::string& op, const std::string& kernel_name, const Params& params,
                               const std::vector<Buffer>& in, const std::vector<TensorSpec>& out_specs,
                               int threads, Device device) {
  std::vector<Buffer> out;
  std::vector<TensorSpec> in_specs;
  std::vector<View> in_views, out_views;
  for (const auto& b : in) in_specs.push_back(b.spec()), in_views.push_back(b.view());
  for (const auto& s : out_specs) out.emplace_back(s), out_views.push_back(out.back().view());
  const KernelRequest request{params, in_specs, out_specs, threads};
  const KernelInfo* info = Registry::builtin().find(op, kernel_name, device, kernel_dtype(request));
  if (!info) throw std::runtime_error("no kernel " + op + " " + kernel_name);
  auto kernel = info->make(request);
  if (!kernel) throw std::runtime_error("kernel " + op + " " + kernel_name + " declines");
  const Buffer workspace({DType::u8, {kernel->workspace_bytes()}, Layout::plain});
  kernel->run({in_views, out_views, workspace.data()});
  return out;
}

std::vector<Buffer> run_reference(const std::string& op, const Params& params, const std::vector<Buffer>& in,
                                  const std::vector<TensorSpec>& out) {
  return run_kernel(op, "reference", params, in, out);
}

std::vector<Buffer> weighted_sum_gradient(const std::vector<TensorSpec>& outputs, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<Buffer> w;
  for (const auto& s : outputs) {
    w.emplace_back(TensorSpec{s.dtype, s.shape, Layout::plain});
    if (s.dtype == DType::f32) fill_uniform(w.back(), random);
    w.back() = to_layout(w.back(), s.layout, 0);
  }
  return w;
}

double weighted_sum(const std::vector<Buffer>& outputs, unsigned seed) {
  std::vector<TensorSpec> specs;
  for (const auto& b : outputs) specs.push_back(b.spec());
  const auto weights = weighted_sum_gradient(specs, seed);
  double sum = 0;
  for (size_t o = 0; o < outputs.size(); ++o)
    if (specs[o].dtype == DType::f32)
      for_each_element(specs[o], [&](int64_t n, int64_t i) {
        sum += double{element<float>(weights[o], n, i)} * double{element<float>(outputs[o], n, i)};
      });
  return sum;
}

namespace {

using KernelCases = ::testing::TestWithParam<std::string>;

TEST_P(KernelCases, MatchTheReference) {
  std::map<const KernelInfo*, int> accepted;
  for (const auto& info : Registry::builtin().all())
    if (info.op == GetParam() && info.device == Device::cpu) accepted[&info] = 0;
  const int64_t initial = cpu_target();
  for (const auto& c : all_kernel_cases()) {
    if (c.op != GetParam()) continue;
    SCOPED_TRACE(c.op + " '" + c.label + "'");
    std::map<DType, TypedCase> typed;
    for (auto& [info, count] : accepted) {
      if (!typed.count(info->dtype)) typed.emplace(info->dtype, typed_case(c, info->dtype));
      const TypedCase& now = typed.at(info->dtype);
      for (Layout layout : {Layout::plain, Layout::nhwc, Layout::lanes}) {
        if (!takes(info->layout, layout) || !has_layout(c, layout)) continue;
        for (int64_t target : targets_to_test()) {
          if (info->is_reference() && target != initial) continue;
          set_cpu_target(target);
          for (int threads : thread_counts())
            for (bool in_place : {false, true}) {
              if (in_place && c.in_place.empty()) continue;
              if (info->is_reference() && threads > 1) continue;
              count += run_variant(now, {info, layout, threads, target, in_place});
            }
        }
        set_cpu_target(initial);
      }
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
  // oneDNN computes in bf16 from AVX-512 on.
  const bool onednn_bf16 = supported_levels().front() >= CpuLevel::avx512;
  for (const auto& [info, count] : accepted) {
    if (info->dtype == DType::bf16 && info->name.starts_with("onednn") && !onednn_bf16) continue;
    EXPECT_GT(count, 0) << "no case runs " << info->op << " " << info->name << " " << name(info->dtype);
  }
}

std::set<std::string> ops() {
  std::set<std::string> all;
  for (const auto& info : Registry::builtin().all()) all.insert(info.op);
  return all;
}
INSTANTIATE_TEST_SUITE_P(Ops, KernelCases, ::testing::ValuesIn(ops()),
                         [](const auto& op) { return op.param; });

TEST(KernelCases, EveryGradientMatchesCentralDifferences) {
  for (const auto& make : gradient_makers())
    for (const auto& c : make()) {
      SCOPED_TRACE(c.label);
      const auto analytic = c.gradient(c.inputs);
      ASSERT_EQ(analytic.size(), c.inputs.size());
      std::mt19937 random(777);
      for (size_t i = 0; i < c.inputs.size(); ++i)
        for (int direction = 0; direction < 3; ++direction) {
          const TensorSpec spec = c.inputs[i].spec();
          Buffer d(spec);
          fill_uniform(d, random);
          double expected = 0, scale = 0;
          for_each_element(spec, [&](int64_t n, int64_t k) {
            const double term = double{element<float>(analytic[i], n, k)} * double{element<float>(d, n, k)};
            expected += term, scale += term * term;
          });
          auto at = [&](double h) {
            std::vector<Buffer> moved = c.inputs;
            moved[i] = Buffer(spec);
            for (int64_t k = 0; k < spec.stored_elements(); ++k)
              moved[i].as<float>()[k] =
                  static_cast<float>(double{c.inputs[i].as<float>()[k]} + h * double{d.as<float>()[k]});
            return c.loss(moved);
          };
          const double difference = (at(c.step) - at(-c.step)) / (2 * c.step);
          EXPECT_NEAR(difference, expected, c.tolerance * (std::sqrt(scale) + std::abs(expected)) + 1e-6)
              << "input " << i << " direction " << direction;
        }
    }
}

TEST(KernelCases, EveryOpHasReferenceCasesAndGradient) {
  std::set<std::string> with_cases, with_gradient;
  for (const auto& c : all_kernel_cases()) with_cases.insert(c.op);
  for (const auto& make : gradient_makers())
    for (const auto& c : make()) with_gradient.insert(c.ops.begin(), c.ops.end());
  for (const auto& op : with_cases) EXPECT_TRUE(ops().count(op)) << "a case of " << op << ", which is no op";
  for (const auto& op : ops()) {
    EXPECT_TRUE(Registry::builtin().find(op, "reference", Device::cpu) ||
                Registry::builtin().find(op, "reference", Device::cpu, DType::bf16))
        << op << " has no reference";
    EXPECT_TRUE(with_cases.count(op)) << op << " has no case";
    EXPECT_TRUE(with_gradient.count(op) || no_gradient().count(op))
        << op << " is neither proven by a gradient case nor declared to need none";
  }
}

}  // namespace
}  // namespace lockstep::testing
