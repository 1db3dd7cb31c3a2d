// SPDX-License-Identifier: Apache-2.0
// What convolution and matmul kernels promise about their bits (BitExact), on shapes large enough that
// several threads share the work. No tolerance: bits are equal or not.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/conv2d/conv2d.h"
#include "kernels/core/cpu_target.h"
#include "kernels/linear/linear.h"
#include "tests/support/combinations.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing::bit_exact_test {
namespace {

struct Work {
  std::string op;
  Params params;
  std::vector<TensorSpec> in, out;
  std::vector<size_t> batch_in, batch_out;
};

std::vector<Work> works() {
  std::vector<Work> all;
  const auto add = [&](const std::string& op, const Params& p, const Shape& x, const Shape& w,
                       const Shape& y) {
    const Shape b = {w[0]};
    all.push_back({op, p, {f32(x), f32(w), f32(b)}, {f32(y)}, {0}, {0}});
    all.push_back({op + "_input_grad", p, {f32(y), f32(w)}, {f32(x)}, {0}, {0}});
    all.push_back({op + "_weight_grad", p, {f32(x), f32(y)}, {f32(w), f32(b)}, {0, 1}, {}});
  };
  add("conv2d", Conv2dParams{}, {43, 3, 12, 12}, {10, 3, 3, 3}, {43, 10, 10, 10});
  const Conv2dParams grouped{.stride_h = 2, .pad_top = 1, .pad_left = 2, .dilation_w = 2, .groups = 2};
  add("conv2d", grouped, {43, 8, 11, 12}, {10, 4, 3, 3}, {43, 10, 5, 10});
  add("conv2d", Conv2dParams{.pad_top = 1, .pad_right = 1}, {43, 17, 5, 6}, {20, 17, 3, 3}, {43, 20, 4, 5});
  add("linear", LinearParams{}, {43, 190}, {90, 190}, {43, 90});
  return all;
}

// Activations and weights in bf16, biases and their gradients and the weights' as they are.
Work lowered(Work w) {
  w.in[0].dtype = w.in[1].dtype = DType::bf16;
  for (size_t o : w.batch_out) w.out[o].dtype = DType::bf16;
  return w;
}

std::vector<Layout> layouts_of(const KernelInfo& k, const Work& w) {
  switch (k.layout) {
    case LayoutClass::plain:
      return {Layout::plain};
    case LayoutClass::nhwc:
      return {Layout::nhwc};
    case LayoutClass::lanes:
      return {Layout::lanes};
    case LayoutClass::any:
      return w.in[0].shape.rank() == 4 ? std::vector{Layout::plain, Layout::nhwc, Layout::lanes}
                                       : std::vector{Layout::plain, Layout::lanes};
  }
  return {};
}

// Samples [first, first + count) of a plain tensor.
Buffer slice(const Buffer& b, int64_t first, int64_t count) {
  TensorSpec s = b.spec();
  s.shape.set(0, count);
  const Buffer part(s);
  const int64_t bytes_per = s.shape.elements_from(1) * size_of(s.dtype);
  std::memcpy(part.data(), b.as<std::byte>() + first * bytes_per, static_cast<size_t>(count * bytes_per));
  return part;
}

// Runs on samples [first, first + count) laid out as `layout`; outputs come back plain.
std::vector<Buffer> run_part(const Work& w, const KernelInfo& k, Layout layout, int threads,
                             const std::vector<Buffer>& plain, int64_t first, int64_t count) {
  std::vector<Buffer> in = plain, out;
  std::vector<TensorSpec> specs = w.out;
  for (size_t i : w.batch_in) in[i] = to_layout(slice(plain[i], first, count), layout);
  for (size_t o : w.batch_out) specs[o].shape.set(0, count), specs[o].layout = layout;
  for (auto& b : run_kernel(w.op, k.name, w.params, in, specs, threads))
    out.push_back(to_layout(b, Layout::plain));
  return out;
}

bool declines(const Work& w, const KernelInfo& k, Layout layout) {
  std::vector<TensorSpec> in = w.in, out = w.out;
  for (size_t i : w.batch_in) in[i].layout = layout;
  for (size_t o : w.batch_out) out[o].layout = layout;
  return k.make({w.params, in, out, 1}) == nullptr;
}

bool same_bits(const Buffer& a, const Buffer& b) {
  return a.spec() == b.spec() && std::memcmp(a.data(), b.data(), static_cast<size_t>(a.spec().bytes())) == 0;
}

TEST(BitExact, ConvolutionsAndMatmulsKeepTheirPromises) {
  const int64_t initial = cpu_target();
  for (const auto& f32_work : works()) {
    const int64_t n = f32_work.in[0].shape[0];
    for (const auto& k : Registry::builtin().all()) {
      if (k.op != f32_work.op || k.device != Device::cpu) continue;
      const Work w = k.dtype == DType::bf16 ? lowered(f32_work) : f32_work;
      std::vector<Buffer> plain;
      std::mt19937 random(99);
      for (TensorSpec s : w.in) {
        const DType dtype = s.dtype;
        s.dtype = DType::f32;
        const Buffer b(s);
        fill_uniform(b, random);
        plain.push_back(converted(b, dtype));
      }
      for (Layout layout : layouts_of(k, w)) {
        if (declines(w, k, layout)) continue;
        for (int64_t target : targets_to_test()) {
          // Neither the reference nor oneDNN asks for our instruction set.
          if (target != initial && (k.is_reference() || k.name.starts_with("onednn"))) continue;
          set_cpu_target(target);
          SCOPED_TRACE(fmt::format("{} {} {} {} {} {}", w.op, k.name, name(k.dtype), name(layout),
                                   cpu_target_name(target), w.params.text()));
          const auto once = run_part(w, k, layout, 1, plain, 0, n);
          for (int threads : thread_counts({1, 2, 3, 5})) {
            const auto first = run_part(w, k, layout, threads, plain, 0, n);
            const auto again = run_part(w, k, layout, threads, plain, 0, n);
            for (size_t o = 0; o < once.size(); ++o) {
              EXPECT_TRUE(same_bits(first[o], again[o]))
                  << "a second run with " << threads << " threads differs";
              if (k.bit_exact.threads) {
                EXPECT_TRUE(same_bits(once[o], first[o])) << threads << " threads differ from one";
              }
            }
          }
          if (!k.bit_exact.shard) continue;
          ASSERT_FALSE(w.batch_out.empty()) << "no outputs by sample";
          for (int64_t cut : {5, 16, 27}) {
            const auto head = run_part(w, k, layout, 1, plain, 0, cut);
            const auto rest = run_part(w, k, layout, 1, plain, cut, n - cut);
            for (size_t o : w.batch_out) {
              EXPECT_TRUE(same_bits(slice(once[o], 0, cut), head[o])) << "cut at " << cut;
              EXPECT_TRUE(same_bits(slice(once[o], cut, n - cut), rest[o])) << "cut at " << cut;
            }
          }
        }
      }
      set_cpu_target(initial);
    }
  }
}

}  // namespace
}  // namespace lockstep::testing::bit_exact_test
