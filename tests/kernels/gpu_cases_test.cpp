// Every GPU kernel against the CPU reference, on the executor: watched, so that any wrong access, race or
// barrier fails the test, and plain. Runs the ops' ordinary cases (kernel_cases.h) in fp32 and bf16.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "kernels/core/gpu/watch/watch.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing {
namespace {

// False where the kernel declines.
bool run_case(const TypedCase& r, const KernelInfo& info, Layout layout, bool in_place, bool watched) {
  const KernelCase& c = r.c;
  const std::string where =
      fmt::format("{} '{}' {} {} {} layout={}{}{}", c.op, c.label, info.name, name(info.dtype),
                  c.params.text(), name(layout), in_place ? " in place" : "", watched ? " watched" : "");
  std::vector<Buffer> in, out;
  for (size_t i = 0; i < r.inputs.size(); ++i) {
    const bool follows = contains(c.batch_in, i);
    in.push_back(converted(to_layout(r.inputs[i], follows ? layout_for(c.in[i], layout) : Layout::plain),
                           contains(r.bf16_in, i) ? DType::bf16 : c.in[i].dtype));
  }
  for (size_t o = 0; o < c.out.size(); ++o) {
    TensorSpec s = c.out[o];
    if (contains(c.batch_out, o)) s.layout = layout_for(s, layout);
    if (contains(r.bf16_out, o)) s.dtype = DType::bf16;
    out.emplace_back(s);
    for (auto [from, to] : c.in_place)
      if (in_place && to == static_cast<int>(o)) {
        if (in[static_cast<size_t>(from)].spec() != s) return false;
        out.back() = in[static_cast<size_t>(from)];
      }
  }
  std::vector<TensorSpec> in_specs, out_specs;
  std::vector<View> in_views, out_views;
  for (const Buffer& b : in) in_specs.push_back(b.spec()), in_views.push_back(b.view());
  for (const Buffer& b : out) out_specs.push_back(b.spec()), out_views.push_back(b.view());
  const auto kernel = info.make({c.params, in_specs, out_specs});
  if (!kernel) return false;
  const Buffer workspace({DType::u8, {kernel->workspace_bytes()}, Layout::plain});
  std::memset(workspace.data(), 0xFF, static_cast<size_t>(kernel->workspace_bytes()));

  std::vector<std::unique_ptr<gpu_watch::Allocation>> memory;
  const auto allow = [&](const Buffer& b, std::string text) {
    memory.push_back(std::make_unique<gpu_watch::Allocation>(b.data(), b.spec().bytes(), std::move(text)));
  };
  for (size_t i = 0; i < in.size(); ++i) allow(in[i], fmt::format("input {}", i));
  for (size_t o = 0; o < out.size(); ++o) allow(out[o], fmt::format("output {}", o));
  allow(workspace, "the workspace");
  std::vector<std::vector<std::byte>> before;
  for (const auto& b : in) before.emplace_back(b.as<std::byte>(), b.as<std::byte>() + b.spec().bytes());

  kernel->run({in_views, out_views, workspace.data()});
  if (watched)
    for (const auto& f : gpu_watch::take_findings()) ADD_FAILURE() << where << ":\n" << f.text();

  EXPECT_TRUE(workspace.sentinels_intact()) << where << ": wrote outside its workspace";
  for (size_t i = 0; i < in.size(); ++i) {
    bool overwritten = false;
    for (auto [from, to] : c.in_place) overwritten |= in_place && from == static_cast<int>(i);
    EXPECT_TRUE(in[i].sentinels_intact()) << where << ": wrote outside input " << i;
    EXPECT_TRUE(overwritten || std::equal(before[i].begin(), before[i].end(), in[i].as<std::byte>()))
        << where << ": changed input " << i;
  }
  for (size_t o = 0; o < out.size(); ++o) {
    EXPECT_TRUE(out[o].sentinels_intact()) << where << ": wrote outside output " << o;
    compare(converted(out[o], r.expected[o].spec().dtype), r.expected[o], r.tolerance(o),
            fmt::format("{} output {}", where, o));
  }
  return true;
}

using Key = std::tuple<std::string, std::string, DType>;  // op, kernel, dtype

TEST(GpuCases, EveryKernelMatchesTheReferenceWithoutFindings) {
  std::map<Key, int> ran, odd;
  gpu_watch::take_findings();
  const Registry& watched = watched_registry();
  for (const KernelCase& c : all_kernel_cases()) {
    std::vector<const KernelInfo*> kernels;
    for (const auto& info : watched.all())
      if (info.op == c.op) kernels.push_back(&info);
    if (kernels.empty()) continue;
    for (DType dtype : {DType::f32, DType::bf16}) {
      std::optional<TypedCase> now;
      for (const KernelInfo* info : kernels) {
        if (info->dtype != dtype) continue;
        if (!now) now = typed_case(c, dtype);
        const KernelInfo* plain_twin = Registry::builtin().find(info->op, info->name, Device::simt, dtype);
        ASSERT_NE(plain_twin, nullptr) << info->op << " " << info->name;
        for (Layout layout : {Layout::plain, Layout::nhwc})
          for (bool in_place : {false, true}) {
            if (!takes(info->layout, layout) || !has_layout(c, layout) || (in_place && c.in_place.empty()))
              continue;
            if (!run_case(*now, *plain_twin, layout, in_place, false) || !c.watched) continue;
            ran[{info->op, info->name, dtype}] += run_case(*now, *info, layout, in_place, true);
          }
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }
  for (const auto& info : watched.all())
    EXPECT_GT((ran[{info.op, info.name, info.dtype}]), 0)
        << "no case runs " << info.op << " " << info.name << " " << name(info.dtype);
}

// Masks, noise and optimizer steps are the CPU's to the bit (design: randomness by counters; optimizer.h), so that a job
// may move between devices.
TEST(GpuCases, RandomnessAndOptimizerGiveTheCpusBits) {
  const std::map<std::string, std::pair<const char*, const char*>> kernels = {
      {"dropout", {"highway", "philox"}},
      {"diffusion_noise", {"highway", "philox"}},
      {"image_augment", {"rows", "gather"}},
      {"label_dropout", {"reference", "philox"}},
      {"weighted_mse_grad", {"highway", "direct"}},
      {"optimizer_step", {"simd", "chunks"}}};
  std::map<std::string, int> compared;
  for (const KernelCase& c : all_kernel_cases()) {
    const auto pair = kernels.find(c.op);
    if (pair == kernels.end()) continue;
    const std::vector<Buffer> in = make_inputs(c);
    std::vector<TensorSpec> in_specs;
    std::vector<View> in_views, out_views;
    for (const Buffer& b : in) in_specs.push_back(b.spec()), in_views.push_back(b.view());
    std::vector<Buffer> out;
    for (const TensorSpec& s : c.out) out.emplace_back(s), out_views.push_back(out.back().view());
    const KernelRequest request{c.params, in_specs, c.out};
    const auto* gpu =
        Registry::builtin().find(c.op, pair->second.second, Device::simt, kernel_dtype(request));
    ASSERT_NE(gpu, nullptr) << c.op;
    const auto kernel = gpu->make(request);
    ASSERT_NE(kernel, nullptr) << c.op << " " << c.label;
    kernel->run({in_views, out_views, nullptr});
    const auto cpu = run_kernel(c.op, pair->second.first, c.params, in, c.out);
    for (size_t o = 0; o < out.size(); ++o)
      EXPECT_EQ(std::memcmp(out[o].data(), cpu[o].data(), static_cast<size_t>(out[o].spec().bytes())), 0)
          << c.op << " " << c.label << " output " << o;
    ++compared[c.op];
  }
  for (const auto& [op, names] : kernels) EXPECT_GT(compared[op], 0) << op;
}

// A kernel that only a GPU could run would be untested.
TEST(GpuCases, EveryCudaKernelHasItsSimtTwinInBothTypes) {
  std::set<Key> cuda, simt;
  for (const auto& k : Registry::builtin().all()) {
    if (k.device == Device::cuda) cuda.insert({k.op, k.name, k.dtype});
    if (k.device == Device::simt) simt.insert({k.op, k.name, k.dtype});
  }
  for (const auto& [op, kernel, dtype] : cuda) {
    if (kernel.starts_with("cu"))
      continue;  // cuDNN's and cuBLASLt's, which run on stand-ins (cuda/cuda_cases_test.cpp)
    EXPECT_TRUE(simt.contains({op, kernel, dtype})) << op << " " << kernel << " " << name(dtype);
  }
  const std::set<std::string> exempt = {"grad_norm",                        // of f32 gradients
                                        "cast",                             // from one to the other
                                        "label_dropout", "image_augment"};  // whole numbers
  for (const auto& [op, kernel, dtype] : simt)
    for (DType other : {DType::f32, DType::bf16})
      EXPECT_TRUE(simt.contains({op, kernel, other}) || exempt.contains(op))
          << op << " " << kernel << " has no " << name(other);
}

}  // namespace
}  // namespace lockstep::testing
