// SPDX-License-Identifier: Apache-2.0
// cuDNN's convolutions, images plain or nhwc. For nhwc images it wants weights in that order too: they are
// reordered in the workspace. Padding that differs from side to side is declined.
//
// fp32 keeps to fp32 arithmetic (no TF32), bf16 adds in fp32. Of its algorithms only those that repeat bit
// for bit. A bf16 weight gradient leaves cuDNN rounded to bf16, as in PyTorch's autocast, and is widened
// then.
//
// What cuDNN offers may differ from batch to batch, and a kernel must not decline for its batch: it is made
// where cuDNN has an algorithm for one sample, and takes one of those for its own number of samples. Are
// there none, it works sample by sample.
#include "kernels/vendor/cudnn.h"

#include <algorithm>
#include <array>
#include <optional>

#include "kernels/conv2d/conv2d.h"
#include "kernels/core/kernel.h"
#include "kernels/gpu/library_parts.h"

namespace lockstep {
namespace {

// What an algorithm may use, unless all use more.
constexpr size_t kMostWorkspace = size_t{512} << 20;

// Those, they come fastest first, that repeat bit for bit in the math that was asked for, and are modest in
// memory; else the most modest.
template <class Performance>
Algorithms<Performance> usable(std::span<const Performance> all, bool strict_fp32) {
  Algorithms<Performance> modest;
  const Performance* least = nullptr;
  for (const Performance& p : all) {
    if (p.status != CUDNN_STATUS_SUCCESS || p.determinism != CUDNN_DETERMINISTIC) continue;
    if (strict_fp32 && p.mathType != CUDNN_FMA_MATH) continue;
    if (p.memory <= kMostWorkspace) modest.add(p);
    if (!least || p.memory < least->memory) least = &p;
  }
  if (modest.empty() && least) modest.add(*least);
  return modest;
}

// The convolution that all three ops are about, in cuDNN's words. Performance: the op's structure that
// describes an algorithm.
template <class Performance>
class CudnnConv2d : public Kernel {
 public:
  CudnnConv2d(Cudnn& cudnn, const Conv2dParams& p, const TensorSpec& x, const Shape& w, const TensorSpec& y)
      : cudnn_(cudnn),
        samples_(x.shape[0]),
        strict_fp32_(x.dtype == DType::f32),
        weights_{x.dtype, w, same_in_nhwc(w) ? Layout::plain : x.layout},
        x_spec_(x),
        y_spec_(y),
        w_(cudnn_filter(cudnn, {x.dtype, w, x.layout})) {
    cudnnConvolutionDescriptor_t made = nullptr;
    LOCKSTEP_CUDNN(cudnn, cudnnCreateConvolutionDescriptor, &made);
    convolution_ = {made, cudnn.cudnnDestroyConvolutionDescriptor};
    const auto i = [](int64_t n) { return static_cast<int>(n); };
    LOCKSTEP_CUDNN(cudnn, cudnnSetConvolution2dDescriptor, made, i(p.pad_top), i(p.pad_left), i(p.stride_h),
                   i(p.stride_w), i(p.dilation_h), i(p.dilation_w), CUDNN_CROSS_CORRELATION,
                   CUDNN_DATA_FLOAT);
    LOCKSTEP_CUDNN(cudnn, cudnnSetConvolutionGroupCount, made, i(p.groups));
  }

  // False: cuDNN has no algorithm.
  bool prepare() {
    if (!offered(1)) return false;
    if (samples_ > 1 && !offered(samples_)) offered(1);
    for (const Performance& a : algorithms_.all()) algorithm_bytes_ = std::max(algorithm_bytes_, a.memory);
    return true;
  }

  int64_t workspace_bytes() const override {
    const int64_t bytes = other_bytes() + gpu_aligned(static_cast<int64_t>(algorithm_bytes_));
    return bytes ? bytes + kGpuAlignment : 0;
  }

 protected:
  // Asks for algorithms for x_ and y_ as they are.
  virtual cudnnStatus_t query(int most, int* count, Performance* all) = 0;
  virtual const char* query_name() const = 0;
  // Of the workspace, before the algorithm's part.
  virtual int64_t other_bytes() const { return 0; }

  // Calls f(first sample) for each part of the batch that cuDNN takes at once.
  template <class F>
  void each_part(const F& f) const {
    for (int64_t first = 0; first < samples_; first += part_) f(first);
  }
  bool in_parts() const { return part_ < samples_; }
  // Runs `call`, a function of algorithm and workspace, with the first algorithm that does it.
  template <class Call>
  void convolve(const char* name, const KernelArgs& args, const Call& call) {
    void* const workspace = algorithm_bytes_ ? gpu_aligned(args.workspace) + other_bytes() : nullptr;
    const std::string problem = algorithms_.run([&](const Performance& a) -> std::string {
      set_math(a.mathType);
      const cudnnStatus_t status = call(a.algo, workspace);
      if (status == CUDNN_STATUS_SUCCESS) return {};
      return fmt::format("{}: {} ({}), algorithm {}", name, cudnn_.cudnnGetErrorString(status),
                         static_cast<int>(status), static_cast<int>(a.algo));
    });
    if (!problem.empty()) cudnn_.fail(problem);
  }
  int64_t weights_bytes() const { return gpu_aligned(weights_.bytes()); }

  Cudnn& cudnn_;
  int64_t samples_;
  bool strict_fp32_;
  TensorSpec weights_;  // as cuDNN has them
  TensorSpec x_spec_, y_spec_;
  CudnnDescriptor<cudnnTensorDescriptor_t> x_{nullptr, nullptr}, y_{nullptr, nullptr};  // of a part
  CudnnDescriptor<cudnnFilterDescriptor_t> w_;
  CudnnDescriptor<cudnnConvolutionDescriptor_t> convolution_{nullptr, nullptr};
  size_t algorithm_bytes_ = 0;  // the most that one wants
  static constexpr float kOne = 1, kZero = 0;

 private:
  // Takes what cuDNN offers for so many samples at once; false: nothing.
  bool offered(int64_t samples) {
    const TensorSpec x = with_samples(x_spec_, samples), y = with_samples(y_spec_, samples);
    if (!fits_cudnn(x) || !fits_cudnn(y)) return false;
    x_ = cudnn_tensor(cudnn_, x), y_ = cudnn_tensor(cudnn_, y), part_ = samples;
    set_math(strict_fp32_ ? CUDNN_FMA_MATH : CUDNN_TENSOR_OP_MATH);
    std::array<Performance, 16> all{};
    int count = 0;
    const cudnnStatus_t status = query(static_cast<int>(all.size()), &count, all.data());
    if (cudnn_declines(status)) {
      notice_once(fmt::format("cuDNN declines some shapes: {}: {} ({})", query_name(),
                              cudnn_.cudnnGetErrorString(status), static_cast<int>(status)));
      return false;
    }
    cudnn_.check(status, query_name());
    algorithms_ = usable(std::span<const Performance>(all.data(), static_cast<size_t>(count)), strict_fp32_);
    if (algorithms_.empty())
      notice_once(fmt::format("cuDNN declines some shapes: {}: none that repeats bit for bit", query_name()));
    return !algorithms_.empty();
  }
  void set_math(cudnnMathType_t math) {
    if (math_ == math) return;
    LOCKSTEP_CUDNN(cudnn_, cudnnSetConvolutionMathType, convolution_.get(), math);
    math_ = math;
  }
  static bool same_in_nhwc(const Shape& w) { return w[1] == 1 || w.elements_from(2) == 1; }

  int64_t part_ = 1;  // samples at once
  Algorithms<Performance> algorithms_;
  std::optional<cudnnMathType_t> math_;  // what the descriptor has
};

// Reads weights, in cuDNN's order.
template <class Performance>
class WithWeights : public CudnnConv2d<Performance> {
 public:
  WithWeights(Cudnn& cudnn, const Conv2dParams& p, const TensorSpec& x, const TensorSpec& w,
              const TensorSpec& y)
      : CudnnConv2d<Performance>(cudnn, p, x, w.shape, y) {
    if (this->weights_.layout == Layout::plain) return;
    const KernelInfo* info = Registry::builtin().find("reorder", "transpose", Device::cuda, w.dtype);
    LOCKSTEP_ASSERT(info != nullptr);
    const NoParams none;
    const Params params(none);
    reorder_ = info->make({params, {&w, 1}, {&this->weights_, 1}});
    LOCKSTEP_ASSERT(reorder_ != nullptr);
  }

 protected:
  int64_t other_bytes() const override { return reorder_ ? this->weights_bytes() : 0; }
  const void* ordered(const View& w, const KernelArgs& args) {
    if (!reorder_) return w.data;
    const View to{this->weights_, gpu_aligned(args.workspace)};
    reorder_->run({{&w, 1}, {&to, 1}, nullptr, args.stream});
    return to.data;
  }

 private:
  std::unique_ptr<Kernel> reorder_;
};

class Forward final : public WithWeights<cudnnConvolutionFwdAlgoPerf_t> {
 public:
  Forward(Cudnn& cudnn, const Conv2dParams& p, const KernelRequest& r)
      : WithWeights(cudnn, p, r.in[0], r.in[1], r.out[0]), activation_(p.activation) {}

  void run(const KernelArgs& args) override {
    if (samples_ == 0) return;
    const void* const w = ordered(args.in[1], args);
    each_part([&](int64_t first) {
      convolve("cudnnConvolutionForward", args, [&](auto algorithm, void* workspace) {
        return cudnn_.cudnnConvolutionForward(cudnn_.on(args.stream), &kOne, x_.get(),
                                              cudnn_sample(args.in[0], first), w_.get(), w,
                                              convolution_.get(), algorithm, workspace, algorithm_bytes_,
                                              &kZero, y_.get(), cudnn_sample(args.out[0], first));
      });
    });
    const float* bias = args.in.size() > 2 ? args.in[2].as<float>() : nullptr;
    if (bias || activation_ != Activation::none)
      cuda::add_bias_and_activate(args.out[0], bias, activation_, args.stream);
  }

 private:
  cudnnStatus_t query(int most, int* count, cudnnConvolutionFwdAlgoPerf_t* all) override {
    return cudnn_.cudnnGetConvolutionForwardAlgorithm_v7(cudnn_.on(nullptr), x_.get(), w_.get(),
                                                         convolution_.get(), y_.get(), most, count, all);
  }
  const char* query_name() const override { return "cudnnGetConvolutionForwardAlgorithm_v7"; }

  Activation activation_;
};

class InputGrad final : public WithWeights<cudnnConvolutionBwdDataAlgoPerf_t> {
 public:
  InputGrad(Cudnn& cudnn, const Conv2dParams& p, const KernelRequest& r)
      : WithWeights(cudnn, p, r.out[0], r.in[1], r.in[0]) {}

  void run(const KernelArgs& args) override {
    if (samples_ == 0) return;
    const void* const w = ordered(args.in[1], args);
    each_part([&](int64_t first) {
      convolve("cudnnConvolutionBackwardData", args, [&](auto algorithm, void* workspace) {
        return cudnn_.cudnnConvolutionBackwardData(cudnn_.on(args.stream), &kOne, w_.get(), w, y_.get(),
                                                   cudnn_sample(args.in[0], first), convolution_.get(),
                                                   algorithm, workspace, algorithm_bytes_, &kZero, x_.get(),
                                                   cudnn_sample(args.out[0], first));
      });
    });
  }

 private:
  cudnnStatus_t query(int most, int* count, cudnnConvolutionBwdDataAlgoPerf_t* all) override {
    return cudnn_.cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnn_.on(nullptr), w_.get(), y_.get(),
                                                              convolution_.get(), x_.get(), most, count, all);
  }
  const char* query_name() const override { return "cudnnGetConvolutionBackwardDataAlgorithm_v7"; }
};

// Workspace: the gradient in cuDNN's order and type, the bias's partial sums, the algorithm's. Parts of the
// batch are added in fp32.
class WeightGrad final : public CudnnConv2d<cudnnConvolutionBwdFilterAlgoPerf_t> {
 public:
  WeightGrad(Cudnn& cudnn, const Conv2dParams& p, const KernelRequest& r)
      : CudnnConv2d(cudnn, p, r.in[0], r.out[0].shape, r.in[1]),
        differs_(weights_ != r.out[0]),
        bias_bytes_(r.out.size() > 1 ? gpu_aligned(cuda::bias_grad_workspace_bytes(r.in[1])) : 0) {}

  void run(const KernelArgs& args) override {
    if (samples_ == 0) {
      for (const View& v : args.out) cuda::set_to_zero(v, args.stream);
      return;
    }
    std::byte* const workspace = gpu_aligned(args.workspace);
    const View made{weights_, unpacks() ? workspace : args.out[0].data};
    each_part([&](int64_t first) {
      convolve("cudnnConvolutionBackwardFilter", args, [&](auto algorithm, void* memory) {
        return cudnn_.cudnnConvolutionBackwardFilter(
            cudnn_.on(args.stream), &kOne, x_.get(), cudnn_sample(args.in[0], first), y_.get(),
            cudnn_sample(args.in[1], first), convolution_.get(), algorithm, memory, algorithm_bytes_, &kZero,
            w_.get(), made.data);
      });
      if (unpacks()) cuda::unpack_weight_grad(made, args.out[0].as<float>(), first > 0, args.stream);
    });
    if (args.out.size() > 1)
      cuda::bias_grad(args.in[1], args.out[1].as<float>(), workspace + packed_bytes(), args.stream);
  }

 private:
  cudnnStatus_t query(int most, int* count, cudnnConvolutionBwdFilterAlgoPerf_t* all) override {
    return cudnn_.cudnnGetConvolutionBackwardFilterAlgorithm_v7(
        cudnn_.on(nullptr), x_.get(), y_.get(), convolution_.get(), w_.get(), most, count, all);
  }
  const char* query_name() const override { return "cudnnGetConvolutionBackwardFilterAlgorithm_v7"; }
  bool unpacks() const { return differs_ || in_parts(); }
  int64_t packed_bytes() const { return unpacks() ? weights_bytes() : 0; }
  int64_t other_bytes() const override { return packed_bytes() + bias_bytes_; }

  bool differs_;  // cuDNN's gradient from ours, in order or type
  int64_t bias_bytes_;
};

// Images of one layout, activations and weights of one type.
bool served(const Conv2dParams& p, DType type, const TensorSpec& a, const TensorSpec& b,
            const TensorSpec& w) {
  return p.pad_top == p.pad_bottom && p.pad_left == p.pad_right && a.dtype == type && b.dtype == type &&
         a.layout == b.layout && fits_cudnn(with_samples(a, 1)) && fits_cudnn(with_samples(b, 1)) &&
         fits_cudnn(w);
}

// `w`: where the weights are, or their gradient, which is f32 always.
template <class K>
std::unique_ptr<Kernel> make(const KernelRequest& r, DType type, const TensorSpec& other, const TensorSpec& w,
                             DType type_of_w) {
  const auto& p = r.params.as<Conv2dParams>();
  if (!served(p, type, r.in[0], other, w) || w.dtype != type_of_w) return nullptr;
  Cudnn* const cudnn = Cudnn::get();
  if (!cudnn) return nullptr;
  auto kernel = std::make_unique<K>(*cudnn, p, r);
  return kernel->prepare() ? std::move(kernel) : nullptr;
}

}  // namespace

void register_conv2d_cudnn(Registry& r) {
  for (DType type : {DType::f32, DType::bf16}) {
    const auto add = [&](const char* op, auto make) {
      for (LayoutClass layout : {LayoutClass::plain, LayoutClass::nhwc})
        r.add({.op = op,
               .name = layout == LayoutClass::nhwc ? "cudnn_nhwc" : "cudnn",
               .device = Device::cuda,
               .layout = layout,
               .dtype = type,
               .bit_exact = {.threads = true},
               .make = make});
    };
    add("conv2d", [type](const KernelRequest& q) { return make<Forward>(q, type, q.out[0], q.in[1], type); });
    add("conv2d_input_grad",
        [type](const KernelRequest& q) { return make<InputGrad>(q, type, q.out[0], q.in[1], type); });
    add("conv2d_weight_grad",
        [type](const KernelRequest& q) { return make<WeightGrad>(q, type, q.in[1], q.out[0], DType::f32); });
  }
}

}  // namespace lockstep
