// SPDX-License-Identifier: Apache-2.0
// Every kernel of device cuda against the CPU reference, on the ops' ordinary cases, in memory of its own
// with sentinels around; one test an op. Built twice: against CUDA itself (skipped where no GPU is), and
// against the stand-ins for CUDA, cuDNN and cuBLASLt (LOCKSTEP_STANDINS), where it is about the libraries'
// kernels: our own run on the SIMT executor (kernels/gpu_cases_test.cpp).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <set>

#include "kernels/vendor/gpu_libraries.h"
#include "runtime/device/device_runtime.h"
#include "tests/support/typed_case.h"

namespace lockstep::testing::cuda_cases_test {
namespace {

#ifdef LOCKSTEP_STANDINS
constexpr bool kStandIns = true;
#else
constexpr bool kStandIns = false;
#endif

// Of a bf16 library kernel: an output that is rounded before bias and activation, and again after; a weight
// gradient that is rounded before it is widened.
constexpr double kLibraryRounding = 0x1p-8;
// fp32 by other algorithms than sums in order (Winograd's, Fourier's), which a library may take on a GPU.
constexpr double kLibraryFactor = kStandIns ? 1 : 20;

// cuDNN's and cuBLASLt's.
bool is_library_kernel(const std::string& name) { return name.starts_with("cu"); }

constexpr int64_t kMargin = 288;  // 32-aligned, as slices of the bf16 parameters are, and no more
constexpr auto kSentinel = std::byte{0xA5};

// A tensor on the device, with sentinels on both sides.
class OnDevice {
 public:
  // from null: NaN in f32 and bf16.
  OnDevice(DeviceRuntime& device, int64_t bytes, const void* from)
      : device_(device), memory_(device, bytes + 2 * kMargin) {
    image_.assign(static_cast<size_t>(bytes + 2 * kMargin), kSentinel);
    if (from)
      std::memcpy(image_.data() + kMargin, from, static_cast<size_t>(bytes));
    else
      std::memset(image_.data() + kMargin, 0xFF, static_cast<size_t>(bytes));
    device.copy_to_device(memory_.data(), image_.data(), memory_.bytes());
    device.synchronize();
  }
  void* data() const { return memory_.as<std::byte>() + kMargin; }

  // What lies there now; `intact` tells whether the sentinels do.
  std::vector<std::byte> fetch(bool& intact) const {
    std::vector<std::byte> now(image_.size());
    device_.copy_to_host(now.data(), memory_.data(), memory_.bytes());
    device_.synchronize();
    intact = std::equal(now.begin(), now.begin() + kMargin, image_.begin()) &&
             std::equal(now.end() - kMargin, now.end(), image_.end() - kMargin);
    return {now.begin() + kMargin, now.end() - kMargin};
  }

 private:
  DeviceRuntime& device_;
  DeviceMemory memory_;
  std::vector<std::byte> image_;
};

// Null where the kernel declines.
std::unique_ptr<Kernel> make(const TypedCase& t, const KernelInfo& info, Layout layout) {
  const std::vector<Buffer> in = inputs_in(t, layout);
  return info.make({t.c.params, Views(in).specs, Views(*outputs_in(t, layout, false, in)).specs});
}

// False where the kernel declines.
bool run_case(DeviceRuntime& device, const TypedCase& t, const KernelInfo& info, Layout layout,
              bool in_place) {
  const std::string where = description(t, info, layout, in_place);
  const std::vector<Buffer> in = inputs_in(t, layout);
  const auto outputs = outputs_in(t, layout, in_place, in);
  if (!outputs) return false;
  const std::vector<Buffer>& out = *outputs;
  Views in_views(in), out_views(out);
  const auto kernel = info.make({t.c.params, in_views.specs, out_views.specs});
  if (!kernel) return false;

  std::vector<OnDevice> inputs, results;
  inputs.reserve(in.size()), results.reserve(out.size());
  for (size_t i = 0; i < in.size(); ++i) {
    inputs.emplace_back(device, in[i].spec().bytes(), in[i].data());
    in_views.views[i].data = inputs[i].data();
  }
  std::vector<const OnDevice*> at;  // of each output
  for (size_t o = 0; o < out.size(); ++o) {
    const int from = in_place ? shared_input(t, o) : -1;
    if (from < 0) results.emplace_back(device, out[o].spec().bytes(), nullptr);
    at.push_back(from < 0 ? &results.back() : &inputs[static_cast<size_t>(from)]);
    out_views.views[o].data = at[o]->data();
  }
  const OnDevice workspace(device, kernel->workspace_bytes(), nullptr);
  kernel->run({in_views.views, out_views.views, workspace.data(), device.stream()});
  device.synchronize();

  bool intact = false;
  workspace.fetch(intact);
  EXPECT_TRUE(intact) << where << ": wrote outside its workspace";
  for (size_t i = 0; i < in.size(); ++i) {
    const std::vector<std::byte> now = inputs[i].fetch(intact);
    EXPECT_TRUE(intact) << where << ": wrote outside input " << i;
    EXPECT_TRUE(overwritten(t, i, in_place) || std::equal(now.begin(), now.end(), in[i].as<std::byte>()))
        << where << ": changed input " << i;
  }
  for (size_t o = 0; o < out.size(); ++o) {
    const std::vector<std::byte> now = at[o]->fetch(intact);
    EXPECT_TRUE(intact) << where << ": wrote outside output " << o;
    std::memcpy(out[o].data(), now.data(), now.size());
    double tolerance = t.tolerance(o);
    if (is_library_kernel(info.name))
      tolerance = tolerance * kLibraryFactor + (info.dtype == DType::bf16 ? kLibraryRounding : 0);
    compare(converted(out[o], t.expected[o].spec().dtype), t.expected[o], tolerance,
            fmt::format("{} output {}", where, o));
  }
  return true;
}

std::vector<const KernelInfo*> kernels_under_test() {
  std::vector<const KernelInfo*> found;
  for (const auto& info : Registry::builtin().all())
    if (info.device == Device::cuda && (!kStandIns || is_library_kernel(info.name))) found.push_back(&info);
  return found;
}

template <class T>
class OnCuda : public T {
 protected:
  void SetUp() override {
    if (gpu_count() == 0) GTEST_SKIP() << "no GPU here";
    device_ = make_cuda_runtime(0);
  }
  std::unique_ptr<DeviceRuntime> device_;
};
using CudaCases = OnCuda<::testing::TestWithParam<std::string>>;
using CudaLibraries = OnCuda<::testing::Test>;

TEST_P(CudaCases, MatchTheReference) {
  std::map<const KernelInfo*, int> ran;
  for (const KernelInfo* info : kernels_under_test())
    if (info->op == GetParam()) ran[info] = 0;
  for (const KernelCase& c : all_kernel_cases()) {
    if (c.op != GetParam()) continue;
    for (DType dtype : {DType::f32, DType::bf16}) {
      std::optional<TypedCase> typed;
      for (auto& [info, count] : ran) {
        if (info->dtype != dtype) continue;
        if (!typed) typed = typed_case(c, dtype);
        for (auto [layout, in_place] : gpu_variants(*typed, *info))
          count += run_case(*device_, *typed, *info, layout, in_place);
      }
    }
  }
  for (const auto& [info, count] : ran)
    EXPECT_GT(count, 0) << "no case runs " << info->op << " " << info->name << " " << name(info->dtype);
}

std::set<std::string> ops() {
  std::set<std::string> all;
  for (const KernelInfo* info : kernels_under_test()) all.insert(info->op);
  return all;
}
INSTANTIATE_TEST_SUITE_P(Ops, CudaCases, ::testing::ValuesIn(ops()), [](const auto& op) { return op.param; });

// One choice of kernels serves ranks of other batch sizes, and a rank without samples: whatever the libraries'
// heuristics say of a batch.
void expect_no_kernel_declines_for_its_batch() {
  const auto kernels = kernels_under_test();
  for (const KernelCase& c : all_kernel_cases()) {
    if (std::none_of(kernels.begin(), kernels.end(),
                     [&](const KernelInfo* i) { return i->op == c.op && is_library_kernel(i->name); }))
      continue;
    KernelCase none = c;
    for (int i : c.batch_in) none.in[static_cast<size_t>(i)].shape.set(0, 0);
    for (int o : c.batch_out) none.out[static_cast<size_t>(o)].shape.set(0, 0);
    none.fill = [](std::vector<Buffer>& in, std::mt19937&) {
      for (const Buffer& b : in) std::memset(b.data(), 0, static_cast<size_t>(b.spec().bytes()));
    };
    for (const KernelInfo* info : kernels) {
      if (info->op != c.op || !is_library_kernel(info->name)) continue;
      for (Layout layout : {Layout::plain, Layout::nhwc})
        if (takes(info->layout, layout) && has_layout(c, layout)) {
          const bool made = make(typed_case(c, info->dtype), *info, layout) != nullptr;
          EXPECT_EQ(make(typed_case(none, info->dtype), *info, layout) != nullptr, made)
              << c.op << " '" << c.label << "' " << info->name;
#ifdef LOCKSTEP_STANDINS
          ::setenv("LOCKSTEP_STANDIN_OFFERS_UP_TO", "1", 1);
          EXPECT_EQ(make(typed_case(c, info->dtype), *info, layout) != nullptr, made)
              << c.op << " '" << c.label << "' " << info->name << ", offered for one sample only";
          ::unsetenv("LOCKSTEP_STANDIN_OFFERS_UP_TO");
#endif
        }
    }
  }
}
TEST_F(CudaLibraries, NoKernelDeclinesForItsBatch) { expect_no_kernel_declines_for_its_batch(); }

#ifdef LOCKSTEP_STANDINS
const KernelCase& case_of(const std::vector<KernelCase>& all, const std::string& op,
                          const std::string& label) {
  for (const KernelCase& c : all)
    if (c.op == op && c.label == label) return c;
  throw std::runtime_error("no case " + op + " " + label);
}

// Where nothing is offered for the batch, it is worked off sample by sample.
TEST_F(CudaLibraries, PartsOfABatchMatchTheReference) {
  ::setenv("LOCKSTEP_STANDIN_OFFERS_UP_TO", "1", 1);
  std::map<std::string, int> ran;
  for (const KernelInfo* info : kernels_under_test())
    for (const KernelCase& c : all_kernel_cases())
      if (c.op == info->op) {
        const TypedCase typed = typed_case(c, info->dtype);
        for (auto [layout, in_place] : gpu_variants(typed, *info))
          ran[c.op] += run_case(*device_, typed, *info, layout, in_place);
      }
  ::unsetenv("LOCKSTEP_STANDIN_OFFERS_UP_TO");
  for (const char* op : {"conv2d", "conv2d_input_grad", "conv2d_weight_grad", "linear", "linear_input_grad",
                         "linear_weight_grad"})
    EXPECT_GT(ran[op], 0) << op;
}

TEST_F(CudaLibraries, WhatLibrariesCannotDoTheyDecline) {
  const std::vector<KernelCase> all = all_kernel_cases();
  const auto makes = [&](const std::string& op, const std::string& label, const std::string& kernel) {
    const KernelCase& c = case_of(all, op, label);
    const KernelInfo* info = Registry::builtin().find(op, kernel, Device::cuda);
    const Layout layout = info->layout == LayoutClass::nhwc ? Layout::nhwc : Layout::plain;
    return make(typed_case(c, DType::f32), *info, layout) != nullptr;
  };
  for (const std::string op : {"conv2d", "conv2d_input_grad", "conv2d_weight_grad"}) {
    EXPECT_TRUE(makes(op, "3x3, same", "cudnn"));
    EXPECT_TRUE(makes(op, "depthwise", "cudnn_nhwc"));
    EXPECT_FALSE(makes(op, "asymmetric padding", "cudnn"));
  }
}

// Each entry point of the libraries, failing each time: the kernel's maker or its run says which. (The
// handles' are made once a process: distributed/gpu_test.cpp.)
TEST_F(CudaLibraries, EveryFailureNamesItsCall) {
  struct Failure {
    std::string op, label, kernel;
    std::vector<std::string> calls;
  };
  const std::vector<Failure> failures = {
      {"conv2d",
       "3x3, same",
       "cudnn_nhwc",
       {"cudnnCreateTensorDescriptor", "cudnnSetTensor4dDescriptor", "cudnnCreateFilterDescriptor",
        "cudnnSetFilter4dDescriptor", "cudnnCreateConvolutionDescriptor", "cudnnSetConvolution2dDescriptor",
        "cudnnSetConvolutionGroupCount", "cudnnSetConvolutionMathType",
        "cudnnGetConvolutionForwardAlgorithm_v7", "cudnnSetStream", "cudnnConvolutionForward"}},
      {"conv2d_input_grad",
       "3x3, same",
       "cudnn",
       {"cudnnGetConvolutionBackwardDataAlgorithm_v7", "cudnnConvolutionBackwardData"}},
      {"conv2d_weight_grad",
       "3x3, same",
       "cudnn",
       {"cudnnGetConvolutionBackwardFilterAlgorithm_v7", "cudnnConvolutionBackwardFilter"}},
      {"avg_pool2d",
       "",
       "cudnn",
       {"cudnnCreatePoolingDescriptor", "cudnnSetPooling2dDescriptor", "cudnnPoolingForward"}},
      {"avg_pool2d_grad", "", "cudnn", {"cudnnPoolingBackward"}},
      {"linear",
       "mnist",
       "cublaslt",
       {"cublasLtMatmulDescCreate", "cublasLtMatmulDescSetAttribute", "cublasLtMatrixLayoutCreate",
        "cublasLtMatmulPreferenceCreate", "cublasLtMatmulPreferenceSetAttribute",
        "cublasLtMatmulAlgoGetHeuristic", "cublasLtMatmul"}},
  };
  const std::vector<KernelCase> all = all_kernel_cases();
  for (const Failure& f : failures) {
    const KernelInfo* info = Registry::builtin().find(f.op, f.kernel, Device::cuda);
    ASSERT_NE(info, nullptr) << f.op << " " << f.kernel;
    const Layout layout = info->layout == LayoutClass::nhwc ? Layout::nhwc : Layout::plain;
    for (const std::string& call : f.calls) {
      ::setenv("LOCKSTEP_STANDIN_FAIL", (call + ":0").c_str(), 1);
      std::string message;
      for (const KernelCase& c : all) {
        if (c.op != f.op || (!f.label.empty() && c.label != f.label)) continue;
        try {
          if (!run_case(*device_, typed_case(c, DType::f32), *info, layout, false)) continue;
        } catch (const Error& e) {
          message = e.what();
          EXPECT_EQ(e.exit(), Exit::internal);
        }
        break;
      }
      ::unsetenv("LOCKSTEP_STANDIN_FAIL");
      EXPECT_NE(message.find(call + ": injected failure"), std::string::npos) << call << ": " << message;
    }
  }
}
#endif

}  // namespace
}  // namespace lockstep::testing::cuda_cases_test
