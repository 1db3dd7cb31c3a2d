// SPDX-License-Identifier: Apache-2.0
// cuDNN's average pooling. Its maximum keeps no indices, which our gradient reads; windows of ceil_mode and
// adaptive pooling are not its. A batch that it cannot count is pooled sample by sample.
#include "kernels/vendor/cudnn.h"

#include "kernels/core/kernel.h"
#include "kernels/pool2d/pool2d.h"

namespace lockstep {
namespace {

class AvgPool final : public Kernel {
 public:
  AvgPool(Cudnn& cudnn, const Pool2dParams& p, const TensorSpec& x, const TensorSpec& y, bool gradient)
      : cudnn_(cudnn),
        samples_(x.shape[0]),
        part_(fits_cudnn(x) && fits_cudnn(y) ? std::max<int64_t>(samples_, 1) : 1),
        gradient_(gradient),
        x_(cudnn_tensor(cudnn, with_samples(x, part_))),
        y_(cudnn_tensor(cudnn, with_samples(y, part_))) {
    cudnnPoolingDescriptor_t made = nullptr;
    LOCKSTEP_CUDNN(cudnn, cudnnCreatePoolingDescriptor, &made);
    pooling_ = {made, cudnn.cudnnDestroyPoolingDescriptor};
    const auto i = [](int64_t n) { return static_cast<int>(n); };
    LOCKSTEP_CUDNN(cudnn, cudnnSetPooling2dDescriptor, made,
                   p.count_include_pad ? CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING
                                       : CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING,
                   CUDNN_PROPAGATE_NAN, i(p.kernel_h), i(p.kernel_w), i(p.pad_h), i(p.pad_w), i(p.stride_h),
                   i(p.stride_w));
  }

  void run(const KernelArgs& args) override {
    const float one = 1, zero = 0;
    for (int64_t first = 0; first < samples_; first += part_) {
      const void* in = cudnn_sample(args.in[0], first);
      void* out = cudnn_sample(args.out[0], first);
      if (!gradient_)
        LOCKSTEP_CUDNN(cudnn_, cudnnPoolingForward, cudnn_.on(args.stream), pooling_.get(), &one, x_.get(),
                       in, &zero, y_.get(), out);
      else  // what x and y held matters to a maximum's gradient only
        LOCKSTEP_CUDNN(cudnn_, cudnnPoolingBackward, cudnn_.on(args.stream), pooling_.get(), &one, y_.get(),
                       in, y_.get(), in, x_.get(), out, &zero, x_.get(), out);
    }
  }

 private:
  Cudnn& cudnn_;
  int64_t samples_, part_;  // samples, and how many at once
  bool gradient_;
  CudnnDescriptor<cudnnTensorDescriptor_t> x_, y_;
  CudnnDescriptor<cudnnPoolingDescriptor_t> pooling_{nullptr, nullptr};
};

std::unique_ptr<Kernel> make(const KernelRequest& r, DType type, bool gradient) {
  const auto& p = r.params.as<Pool2dParams>();
  const TensorSpec &x = gradient ? r.out[0] : r.in[0], &y = gradient ? r.in[0] : r.out[0];
  if (p.adaptive || p.ceil_mode || x.dtype != type || y.dtype != type || x.layout != y.layout ||
      !fits_cudnn(with_samples(x, 1)) || !fits_cudnn(with_samples(y, 1)))
    return nullptr;
  Cudnn* const cudnn = Cudnn::get();
  return cudnn ? std::make_unique<AvgPool>(*cudnn, p, x, y, gradient) : nullptr;
}

}  // namespace

void register_pool2d_cudnn(Registry& r) {
  for (DType type : {DType::f32, DType::bf16})
    for (bool gradient : {false, true})
      for (LayoutClass layout : {LayoutClass::plain, LayoutClass::nhwc})
        r.add({.op = gradient ? "avg_pool2d_grad" : "avg_pool2d",
               .name = layout == LayoutClass::nhwc ? "cudnn_nhwc" : "cudnn",
               .device = Device::cuda,
               .layout = layout,
               .dtype = type,
               .bit_exact = {.threads = true},
               .make = [type, gradient](const KernelRequest& q) { return make(q, type, gradient); }});
}

}  // namespace lockstep
