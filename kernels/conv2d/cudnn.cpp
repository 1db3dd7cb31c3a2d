// SPDX-License-Identifier: Apache-2.0
// cuDNN's convolutions, images plain or nhwc. For nhwc images it wants weights in that order too: they are
// reordered in the workspace. Padding that differs from side to side is declined.
//
// fp32 keeps to fp32 arithmetic (no TF32), bf16 adds in fp32. Of its algorithms only those that repeat bit
// for bit. A bf16 weight gradient leaves cuDNN rounded to bf16, as in PyTorch's autocast, and is widened
// then.
#include "kernels/vendor/cudnn.h"

#include <array>

#include "kernels/conv2d/conv2d.h"
#include "kernels/core/kernel.h"
#include "kernels/gpu/library_parts.h"

namespace lockstep {
namespace {

// What an algorithm may use, unless all use more.
constexpr size_t kMostWorkspace = size_t{512} << 20;

// The first, they come fastest first, that repeats bit for bit in the math that was asked for, and is modest
// in memory; else the most modest. Null: there is none.
template <class Performance>
const Performance* choose(std::span<const Performance> all, bool strict_fp32) {
  const Performance* least = nullptr;
  for (const Performance& p : all) {
    if (p.status != CUDNN_STATUS_SUCCESS || p.determinism != CUDNN_DETERMINISTIC) continue;
    if (strict_fp32 && p.mathType != CUDNN_FMA_MATH) continue;
    if (p.memory <= kMostWorkspace) return &p;
    if (!least || p.memory < least->memory) least = &p;
  }
  return least;
}

// The convolution that all three ops are about, in cuDNN's words. Algorithm: of the op's enumeration.
template <class Algorithm>
class CudnnConv2d : public Kernel {
 public:
  CudnnConv2d(Cudnn& cudnn, const Conv2dParams& p, const TensorSpec& x, const Shape& w, const TensorSpec& y)
      : cudnn_(cudnn),
        samples_(x.shape[0]),
        strict_fp32_(x.dtype == DType::f32),
        weights_{x.dtype, w, same_in_nhwc(w) ? Layout::plain : x.layout},
        x_(cudnn_tensor(cudnn, x)),
        y_(cudnn_tensor(cudnn, y)),
        w_(cudnn_filter(cudnn, {x.dtype, w, x.layout})) {
    cudnnConvolutionDescriptor_t made = nullptr;
    LOCKSTEP_CUDNN(cudnn, cudnnCreateConvolutionDescriptor, &made);
    convolution_ = {made, cudnn.cudnnDestroyConvolutionDescriptor};
    const auto i = [](int64_t n) { return static_cast<int>(n); };
    LOCKSTEP_CUDNN(cudnn, cudnnSetConvolution2dDescriptor, made, i(p.pad_top), i(p.pad_left), i(p.stride_h),
                   i(p.stride_w), i(p.dilation_h), i(p.dilation_w), CUDNN_CROSS_CORRELATION,
                   CUDNN_DATA_FLOAT);
    LOCKSTEP_CUDNN(cudnn, cudnnSetConvolutionGroupCount, made, i(p.groups));
    set_math(strict_fp32_ ? CUDNN_FMA_MATH : CUDNN_TENSOR_OP_MATH);
  }

  // Asks `query` (a function of the answer's size, count and place) for an algorithm. False: there is none.
  template <class Performance, class Query>
  bool find_algorithm(Query query, const char* call) {
    std::array<Performance, 16> all{};
    int count = 0;
    const cudnnStatus_t status = query(static_cast<int>(all.size()), &count, all.data());
    if (cudnn_declines(status)) return false;
    cudnn_.check(status, call);
    const auto* best =
        choose(std::span<const Performance>(all.data(), static_cast<size_t>(count)), strict_fp32_);
    if (!best) return false;
    algorithm_ = best->algo, algorithm_bytes_ = best->memory;
    set_math(best->mathType);
    return true;
  }

  int64_t workspace_bytes() const override {
    const int64_t bytes = other_bytes() + gpu_aligned(static_cast<int64_t>(algorithm_bytes_));
    return bytes ? bytes + kGpuAlignment : 0;
  }

 protected:
  // Of the workspace, before the algorithm's part.
  virtual int64_t other_bytes() const { return 0; }
  void* algorithm_workspace(const KernelArgs& args) const {
    return algorithm_bytes_ ? gpu_aligned(args.workspace) + other_bytes() : nullptr;
  }
  int64_t weights_bytes() const { return gpu_aligned(weights_.bytes()); }
  void set_math(cudnnMathType_t math) {
    LOCKSTEP_CUDNN(cudnn_, cudnnSetConvolutionMathType, convolution_.get(), math);
  }

  Cudnn& cudnn_;
  int64_t samples_;
  bool strict_fp32_;
  TensorSpec weights_;  // as cuDNN has them
  CudnnDescriptor<cudnnTensorDescriptor_t> x_, y_;
  CudnnDescriptor<cudnnFilterDescriptor_t> w_;
  CudnnDescriptor<cudnnConvolutionDescriptor_t> convolution_{nullptr, nullptr};
  Algorithm algorithm_{};
  size_t algorithm_bytes_ = 0;
  static constexpr float kOne = 1, kZero = 0;

 private:
  static bool same_in_nhwc(const Shape& w) { return w[1] == 1 || w.elements_from(2) == 1; }
};

// Reads weights, in cuDNN's order.
template <class Algorithm>
class WithWeights : public CudnnConv2d<Algorithm> {
 public:
  WithWeights(Cudnn& cudnn, const Conv2dParams& p, const TensorSpec& x, const TensorSpec& w,
              const TensorSpec& y)
      : CudnnConv2d<Algorithm>(cudnn, p, x, w.shape, y) {
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

class Forward final : public WithWeights<cudnnConvolutionFwdAlgo_t> {
 public:
  Forward(Cudnn& cudnn, const Conv2dParams& p, const KernelRequest& r)
      : WithWeights(cudnn, p, r.in[0], r.in[1], r.out[0]), activation_(p.activation) {}

  bool prepare() {
    return find_algorithm<cudnnConvolutionFwdAlgoPerf_t>(
        [&](int most, int* count, auto* all) {
          return cudnn_.cudnnGetConvolutionForwardAlgorithm_v7(
              cudnn_.on(nullptr), x_.get(), w_.get(), convolution_.get(), y_.get(), most, count, all);
        },
        "cudnnGetConvolutionForwardAlgorithm_v7");
  }

  void run(const KernelArgs& args) override {
    if (samples_ == 0) return;
    LOCKSTEP_CUDNN(cudnn_, cudnnConvolutionForward, cudnn_.on(args.stream), &kOne, x_.get(), args.in[0].data,
                   w_.get(), ordered(args.in[1], args), convolution_.get(), algorithm_,
                   algorithm_workspace(args), algorithm_bytes_, &kZero, y_.get(), args.out[0].data);
    const float* bias = args.in.size() > 2 ? args.in[2].as<float>() : nullptr;
    if (bias || activation_ != Activation::none)
      cuda::add_bias_and_activate(args.out[0], bias, activation_, args.stream);
  }

 private:
  Activation activation_;
};

class InputGrad final : public WithWeights<cudnnConvolutionBwdDataAlgo_t> {
 public:
  InputGrad(Cudnn& cudnn, const Conv2dParams& p, const KernelRequest& r)
      : WithWeights(cudnn, p, r.out[0], r.in[1], r.in[0]) {}

  bool prepare() {
    return find_algorithm<cudnnConvolutionBwdDataAlgoPerf_t>(
        [&](int most, int* count, auto* all) {
          return cudnn_.cudnnGetConvolutionBackwardDataAlgorithm_v7(
              cudnn_.on(nullptr), w_.get(), y_.get(), convolution_.get(), x_.get(), most, count, all);
        },
        "cudnnGetConvolutionBackwardDataAlgorithm_v7");
  }

  void run(const KernelArgs& args) override {
    if (samples_ == 0) return;
    LOCKSTEP_CUDNN(cudnn_, cudnnConvolutionBackwardData, cudnn_.on(args.stream), &kOne, w_.get(),
                   ordered(args.in[1], args), y_.get(), args.in[0].data, convolution_.get(), algorithm_,
                   algorithm_workspace(args), algorithm_bytes_, &kZero, x_.get(), args.out[0].data);
  }
};

// Workspace: the gradient in cuDNN's order and type, the bias's partial sums, the algorithm's.
class WeightGrad final : public CudnnConv2d<cudnnConvolutionBwdFilterAlgo_t> {
 public:
  WeightGrad(Cudnn& cudnn, const Conv2dParams& p, const KernelRequest& r)
      : CudnnConv2d(cudnn, p, r.in[0], r.out[0].shape, r.in[1]),
        unpacks_(weights_ != r.out[0]),
        bias_bytes_(r.out.size() > 1 ? gpu_aligned(cuda::bias_grad_workspace_bytes(r.in[1])) : 0) {}

  bool prepare() {
    return find_algorithm<cudnnConvolutionBwdFilterAlgoPerf_t>(
        [&](int most, int* count, auto* all) {
          return cudnn_.cudnnGetConvolutionBackwardFilterAlgorithm_v7(
              cudnn_.on(nullptr), x_.get(), y_.get(), convolution_.get(), w_.get(), most, count, all);
        },
        "cudnnGetConvolutionBackwardFilterAlgorithm_v7");
  }

  void run(const KernelArgs& args) override {
    if (samples_ == 0) {
      for (const View& v : args.out) cuda::set_to_zero(v, args.stream);
      return;
    }
    std::byte* const workspace = gpu_aligned(args.workspace);
    const View made{weights_, unpacks_ ? workspace : args.out[0].data};
    LOCKSTEP_CUDNN(cudnn_, cudnnConvolutionBackwardFilter, cudnn_.on(args.stream), &kOne, x_.get(),
                   args.in[0].data, y_.get(), args.in[1].data, convolution_.get(), algorithm_,
                   algorithm_workspace(args), algorithm_bytes_, &kZero, w_.get(), made.data);
    if (unpacks_) cuda::unpack_weight_grad(made, args.out[0].as<float>(), args.stream);
    if (args.out.size() > 1)
      cuda::bias_grad(args.in[1], args.out[1].as<float>(), workspace + packed_bytes(), args.stream);
  }

 private:
  int64_t packed_bytes() const { return unpacks_ ? weights_bytes() : 0; }
  int64_t other_bytes() const override { return packed_bytes() + bias_bytes_; }

  bool unpacks_;
  int64_t bias_bytes_;
};

// Images of one layout, activations and weights of one type.
bool served(const Conv2dParams& p, DType type, const TensorSpec& a, const TensorSpec& b,
            const TensorSpec& w) {
  return p.pad_top == p.pad_bottom && p.pad_left == p.pad_right && a.dtype == type && b.dtype == type &&
         a.layout == b.layout && fits_cudnn(a) && fits_cudnn(b) && fits_cudnn(w);
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
