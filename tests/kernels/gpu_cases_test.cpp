// SPDX-License-Identifier: Apache-2.0
// Every GPU kernel against the CPU reference, on the executor: plain, and watched, so that any wrong access,
// race or barrier fails the test. Runs the ops' ordinary cases (kernel_cases.h) in fp32 and bf16. Watched
// kernels are not in builds with sanitizers, which would repeat what the release build finds.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "kernels/gpu/watch/watch.h"
#include "tests/support/typed_case.h"

namespace lockstep::testing::gpu_cases_test {
namespace {

// False where the kernel declines.
bool run_case(const TypedCase& t, const KernelInfo& info, Layout layout, bool in_place, bool watched) {
  const std::string where = description(t, info, layout, in_place) + (watched ? " watched" : "");
  const std::vector<Buffer> in = inputs_in(t, layout);
  const auto outputs = outputs_in(t, layout, in_place, in);
  if (!outputs) return false;
  const std::vector<Buffer>& out = *outputs;
  const Views in_views(in), out_views(out);
  const auto kernel = info.make({t.c.params, in_views.specs, out_views.specs});
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

  kernel->run({in_views.views, out_views.views, workspace.data()});
  if (watched)
    for (const auto& f : gpu_watch::take_findings()) ADD_FAILURE() << where << ":\n" << f.text();

  EXPECT_TRUE(workspace.sentinels_intact()) << where << ": wrote outside its workspace";
  for (size_t i = 0; i < in.size(); ++i) {
    EXPECT_TRUE(in[i].sentinels_intact()) << where << ": wrote outside input " << i;
    EXPECT_TRUE(overwritten(t, i, in_place) ||
                std::equal(before[i].begin(), before[i].end(), in[i].as<std::byte>()))
        << where << ": changed input " << i;
  }
  for (size_t o = 0; o < out.size(); ++o) {
    EXPECT_TRUE(out[o].sentinels_intact()) << where << ": wrote outside output " << o;
    check_output(t, o, out[o], where);
  }
  return true;
}

using Key = std::tuple<std::string, std::string, DType>;  // op, kernel, dtype

// The op's kernels on all its cases; `watched` ones not on those that are too large for them.
void run_cases(const Registry& registry, const std::string& op, bool watched) {
  std::map<const KernelInfo*, int> ran;
  for (const KernelInfo& info : registry.all())
    if (info.op == op && info.device == Device::simt) ran[&info] = 0;
  gpu_watch::take_findings();
  for (const KernelCase& c : all_kernel_cases()) {
    if (c.op != op || (watched && !c.watched)) continue;
    for (DType dtype : {DType::f32, DType::bf16}) {
      std::optional<TypedCase> typed;
      for (auto& [info, count] : ran) {
        if (info->dtype != dtype) continue;
        if (!typed) typed = typed_case(c, dtype);
        for (auto [layout, in_place] : gpu_variants(*typed, *info))
          count += run_case(*typed, *info, layout, in_place, watched);
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }
  for (const auto& [info, count] : ran)
    EXPECT_GT(count, 0) << "no case runs " << info->op << " " << info->name << " " << name(info->dtype);
}

std::set<std::string> simt_ops() {
  std::set<std::string> all;
  for (const KernelInfo& info : Registry::builtin().all())
    if (info.device == Device::simt) all.insert(info.op);
  return all;
}

using GpuCases = ::testing::TestWithParam<std::string>;
INSTANTIATE_TEST_SUITE_P(Ops, GpuCases, ::testing::ValuesIn(simt_ops()),
                         [](const auto& op) { return op.param; });

TEST_P(GpuCases, MatchTheReference) { run_cases(Registry::builtin(), GetParam(), false); }
#ifndef LOCKSTEP_SANITIZED
TEST_P(GpuCases, HaveNoFindings) { run_cases(watched_registry(), GetParam(), true); }

TEST(GpuCases, EveryKernelIsWatchedToo) {
  const auto simt_kernels = [](const Registry& registry) {
    std::set<Key> all;
    for (const KernelInfo& info : registry.all())
      if (info.device == Device::simt) all.insert({info.op, info.name, info.dtype});
    return all;
  };
  EXPECT_EQ(simt_kernels(watched_registry()), simt_kernels(Registry::builtin()));
}
#endif

// Masks, noise and optimizer steps are the CPU's to the bit (design: randomness by counters; optimizer.h), so
// that a job may move between devices.
TEST(GpuCases, RandomnessAndOptimizerGiveTheCpusBits) {
  const std::map<std::string, std::pair<const char*, const char*>> kernels = {
      {"dropout", {"highway", "philox"}},           {"diffusion_noise", {"highway", "philox"}},
      {"image_augment", {"rows", "gather"}},        {"label_dropout", {"reference", "philox"}},
      {"weighted_mse_grad", {"highway", "direct"}}, {"optimizer_step", {"simd", "chunks"}}};
  std::map<std::string, int> compared;
  for (const KernelCase& c : all_kernel_cases()) {
    const auto pair = kernels.find(c.op);
    if (pair == kernels.end()) continue;
    const std::vector<Buffer> in = make_inputs(c);
    std::vector<Buffer> out;
    for (const TensorSpec& spec : c.out) out.emplace_back(spec);
    const Views in_views(in), out_views(out);
    const KernelRequest request{c.params, in_views.specs, c.out};
    const auto* gpu =
        Registry::builtin().find(c.op, pair->second.second, Device::simt, kernel_dtype(request));
    ASSERT_NE(gpu, nullptr) << c.op;
    const auto kernel = gpu->make(request);
    ASSERT_NE(kernel, nullptr) << c.op << " " << c.label;
    kernel->run({in_views.views, out_views.views, nullptr});
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
      continue;  // cuDNN's and cuBLASLt's; but for attention they run on stand-ins (cuda/cuda_cases_test.cpp)
    EXPECT_TRUE(simt.contains({op, kernel, dtype})) << op << " " << kernel << " " << name(dtype);
  }
  const std::set<std::string> exempt = {"grad_norm",  // of f32 gradients
                                        "batch_norm_merge",
                                        "batch_norm_running",
                                        "batch_norm_affine_grad",  // of f32 statistics
                                        "cast",                    // from one to the other
                                        "posterior_sample",        // of f32 moments
                                        "label_dropout",
                                        "image_augment"};  // whole numbers
  for (const auto& [op, kernel, dtype] : simt)
    for (DType other : {DType::f32, DType::bf16})
      EXPECT_TRUE(simt.contains({op, kernel, other}) || exempt.contains(op))
          << op << " " << kernel << " has no " << name(other);
}

}  // namespace
}  // namespace lockstep::testing::gpu_cases_test
