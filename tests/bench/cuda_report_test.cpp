// SPDX-License-Identifier: Apache-2.0
// The GPU kernels as bench/cuda_report finds them on small shapes of the models: what the compiler made of
// them for this build's architecture, and what their accesses cost. The report is made by a test of its own
// before these (CMakeLists.txt).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "bench/works.h"

namespace lockstep::cuda_report_test {
namespace {

using nlohmann::json;

constexpr double kMostSectors = 1.1;     // of the fewest
constexpr double kMostConflicts = 0.05;  // passes over shared memory beyond the first

class CudaReport : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(std::filesystem::exists(LOCKSTEP_CUDA_REPORT))
        << "ctest -R CudaReport makes " LOCKSTEP_CUDA_REPORT;
    report = json::parse(std::ifstream(LOCKSTEP_CUDA_REPORT));
  }
  json report;
};

double ratio(const json& count) {
  const double least = count.at("least").get<double>();
  return least > 0 ? count.at("moved").get<double>() / least : 1;
}
std::string word(const json& work, const char* key) { return work.at(key); }
std::string text(const json& work) {
  return fmt::format("{} {}, {}, {}", word(work, "op"), word(work, "shape"), word(work, "kernel"),
                     word(work, "dtype"));
}
std::string family(const json& work) {
  const std::string op = work.at("op");
  for (const char* f : {"conv2d", "linear", "attention", "group_norm", "batch_norm", "max_pool2d",
                        "avg_pool2d", "elementwise", "upsample_nearest2d", "concat", "slice_channels",
                        "scale_shift", "diffusion_noise", "weighted_mse", "optimizer_step", "grad_norm"})
    if (op.rfind(f, 0) == 0) return f;
  return {};
}

// What steps spend their time in, where sizes are whole sectors (the convnets on MNIST have 1, 10 and 20
// channels) and images lie as plans lay them: channels last.
bool is_main(const json& work) {
  if (work.at("net") == "mnist" || family(work).empty()) return false;
  return family(work) != "attention" || work.at("kernel") == "tiled_nhwc";
}

TEST_F(CudaReport, MainKernelsTouchWholeSectorsAndFreeBanks) {
  std::set<std::string> ops;
  for (const json& work : report.at("works")) {
    if (!is_main(work)) continue;
    ops.insert(work.at("op"));
    int64_t moved = 0, least = 0;
    for (const json& launch : work.at("launches")) {
      moved += launch.at("global").at("moved").get<int64_t>();
      least += launch.at("global").at("least").get<int64_t>();
      EXPECT_LE(ratio(launch.at("shared")), 1 + kMostConflicts)
          << text(work) << ": " << launch.at("name") << launch.at("places").dump(1);
    }
    EXPECT_LE(static_cast<double>(moved), kMostSectors * static_cast<double>(least))
        << text(work) << ": " << work.at("launches").dump(1);
  }
  for (const char* op : {"conv2d",
                         "conv2d_input_grad",
                         "conv2d_weight_grad",
                         "linear",
                         "linear_input_grad",
                         "linear_weight_grad",
                         "attention",
                         "attention_grad",
                         "group_norm",
                         "group_norm_grad",
                         "batch_norm_stats",
                         "batch_norm_apply",
                         "batch_norm_grad_sums",
                         "batch_norm_input_grad",
                         "max_pool2d",
                         "max_pool2d_grad",
                         "avg_pool2d",
                         "avg_pool2d_grad",
                         "elementwise",
                         "upsample_nearest2d",
                         "upsample_nearest2d_grad",
                         "concat",
                         "slice_channels",
                         "slice_channels_grad",
                         "scale_shift",
                         "scale_shift_grad",
                         "diffusion_noise",
                         "weighted_mse",
                         "weighted_mse_grad",
                         "optimizer_step",
                         "grad_norm"})
    EXPECT_TRUE(ops.contains(op)) << op << " was not counted";
}

std::string of_kernel(const KernelInfo& k) { return fmt::format("{} {} {}", k.op, k.name, name(k.dtype)); }

TEST_F(CudaReport, EveryKernelHasARow) {
  std::set<std::string> rows;
  for (const json& work : report.at("works"))
    rows.insert(fmt::format("{} {} {}", word(work, "op"), word(work, "kernel"), word(work, "dtype")));
  for (const KernelInfo& k : Registry::builtin().all())
    EXPECT_TRUE(k.device != Device::simt || rows.contains(of_kernel(k)))
        << of_kernel(k) << ": add its shapes to bench/works.cpp";
}

// The committed table and the GPU's benches are of all shapes, the report above of a few.
TEST(Works, EveryKernelTakesOneOfTheModelsShapes) {
  for (bool few : {false, true}) {
    const std::vector<Work> all = works(1, few);
    for (const KernelInfo& k : Registry::builtin().all()) {
      if (k.device != Device::simt) continue;
      EXPECT_TRUE(std::any_of(all.begin(), all.end(),
                              [&](const Work& w) {
                                if (w.op != k.op || !is_for(k, w)) return false;
                                const WorkTensors t = tensors_for(w, k);
                                return k.make({w.params, t.in, t.out}) != nullptr;
                              }))
          << of_kernel(k) << (few ? ", few shapes" : "");
    }
  }
}

class CompiledKernels : public CudaReport {
 protected:
  void SetUp() override {
    CudaReport::SetUp();
    if (HasFatalFailure()) return;
    if (!report.at("missing").empty()) GTEST_SKIP() << "not there: " << report.at("missing").dump();
    compiled = report.at("compiled");
    ASSERT_FALSE(compiled.empty());
  }
  json compiled;  // by architecture, by name
};

TEST_F(CompiledKernels, NoneSpillsOrHasAStack) {
  for (const auto& [architecture, kernels] : compiled.items()) {
    EXPECT_GT(kernels.size(), 200u) << "sm_" << architecture;
    for (const auto& [name, k] : kernels.items()) {
      EXPECT_EQ(k.at("stack"), 0) << "sm_" << architecture << ": " << name;
      EXPECT_EQ(k.at("local"), 0) << "accesses of local memory, sm_" << architecture << ": " << name;
    }
  }
}

TEST_F(CompiledKernels, ProductsInBf16UseTensorCoresAndLoadsOf16Bytes) {
  std::set<std::string> families;
  for (const json& work : report.at("works")) {
    const std::string f = family(work);
    if (!is_main(work) || work.at("dtype") != "bf16" || (f != "conv2d" && f != "linear" && f != "attention"))
      continue;
    families.insert(f);
    for (const auto& [architecture, kernels] : compiled.items()) {
      bool found = false;  // beside those that prepare or finish
      for (const json& launch : work.at("launches")) {
        const json& k = kernels.at(launch.at("name").get<std::string>());
        if (k.at("tensor_core") == 0) continue;
        found = true;
        EXPECT_GT(k.at("global_loads_16"), 0)
            << text(work) << ", sm_" << architecture << ": " << launch.at("name");
      }
      EXPECT_TRUE(found) << "no tensor-core instruction: " << text(work) << ", sm_" << architecture;
    }
  }
  EXPECT_EQ(families.size(), 3u);
}

// A step of 32 in depth is 64 products a warp: all else takes issue slots from them.
TEST_F(CompiledKernels, StepsOfWideTilesAreShort) {
  int tiles = 0;
  for (const auto& [architecture, kernels] : compiled.items())
    for (const auto& [name, k] : kernels.items()) {
      if (!name.starts_with("gemm_kernel<bf16, 128, 128,")) continue;
      ++tiles;
      const bool across_pixels = name.find("false, false, true, GatheredPixels") != std::string::npos;
      EXPECT_EQ(k.at("loop_tensor_core"), 64) << "sm_" << architecture << ": " << name;
      EXPECT_LE(k.at("loop"), across_pixels ? 230 : 190) << "sm_" << architecture << ": " << name;
    }
  EXPECT_GT(tiles, 0);
}

TEST_F(CudaReport, NoLaunchIsOverAGpusLimits) { EXPECT_EQ(report.at("over_limits"), json::array()); }

// What was counted on the host is what the compiler made for the GPU.
TEST_F(CompiledKernels, EveryCountedKernelIsAmongThem) {
  for (const auto& [architecture, kernels] : compiled.items())
    for (const auto& [name, k] : report.at("kernels").items())
      EXPECT_TRUE(kernels.contains(name)) << "sm_" << architecture << " has no " << name;
}

}  // namespace
}  // namespace lockstep::cuda_report_test
