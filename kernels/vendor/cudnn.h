// SPDX-License-Identifier: Apache-2.0
// What the rooms' cuDNN kernels share: the library, its handle, descriptors that go by themselves.
//
// Entry points are those of cuDNN's legacy interface, which cuDNN 9 still has: it can be asked for algorithms
// that repeat bit for bit and keep to fp32 arithmetic.
#pragma once

#include <cudnn.h>

#include <memory>
#include <optional>

#include "kernels/core/tensor.h"
#include "kernels/vendor/gpu_libraries.h"

namespace lockstep {

#define LOCKSTEP_CUDNN_FUNCTIONS(F)                \
  F(cudnnGetVersion)                               \
  F(cudnnGetErrorString)                           \
  F(cudnnCreate)                                   \
  F(cudnnSetStream)                                \
  F(cudnnCreateTensorDescriptor)                   \
  F(cudnnDestroyTensorDescriptor)                  \
  F(cudnnSetTensor4dDescriptor)                    \
  F(cudnnCreateFilterDescriptor)                   \
  F(cudnnDestroyFilterDescriptor)                  \
  F(cudnnSetFilter4dDescriptor)                    \
  F(cudnnCreateConvolutionDescriptor)              \
  F(cudnnDestroyConvolutionDescriptor)             \
  F(cudnnSetConvolution2dDescriptor)               \
  F(cudnnSetConvolutionGroupCount)                 \
  F(cudnnSetConvolutionMathType)                   \
  F(cudnnGetConvolutionForwardAlgorithm_v7)        \
  F(cudnnGetConvolutionBackwardDataAlgorithm_v7)   \
  F(cudnnGetConvolutionBackwardFilterAlgorithm_v7) \
  F(cudnnConvolutionForward)                       \
  F(cudnnConvolutionBackwardData)                  \
  F(cudnnConvolutionBackwardFilter)                \
  F(cudnnCreatePoolingDescriptor)                  \
  F(cudnnDestroyPoolingDescriptor)                 \
  F(cudnnSetPooling2dDescriptor)                   \
  F(cudnnPoolingForward)                           \
  F(cudnnPoolingBackward)

class Cudnn {
 public:
  // Made at first use, for this process's current GPU, and kept to its end. Null where no GPU or no cuDNN is
  // to be had: kernels decline then. Errors: cuDNN doesn't start on the GPU, internal (70).
  static Cudnn* get();
  // "cuDNN 9.19.0", or why there is none.
  static const std::string& description();

  cudnnHandle_t on(void* stream);  // the handle, working in that stream
  void check(cudnnStatus_t status, const char* call) const;
  [[noreturn]] void fail(const std::string& what) const;  // as check()

#define LOCKSTEP_MEMBER(name) decltype(&::name) name = nullptr;
  LOCKSTEP_CUDNN_FUNCTIONS(LOCKSTEP_MEMBER)
#undef LOCKSTEP_MEMBER
  void* dlhandle = nullptr;  // as dlopen gave it: what looks up entry points itself looks there

 private:
  cudnnHandle_t handle_ = nullptr;
  std::optional<void*> stream_;
};

// A failure as Error(internal, "E_CUDNN") that names the call: LOCKSTEP_CUDNN(cudnn, cudnnSetStream, handle,
// stream).
#define LOCKSTEP_CUDNN(cudnn, name, ...) (cudnn).check((cudnn).name(__VA_ARGS__), #name)

// Whether a query's answer means "not this shape", as opposed to a failure.
inline bool cudnn_declines(cudnnStatus_t status) {
  const int kind = status / 1000 * 1000;
  return kind == CUDNN_STATUS_NOT_SUPPORTED || kind == CUDNN_STATUS_BAD_PARAM;
}

inline cudnnDataType_t cudnn_type(DType t) {
  return t == DType::bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}
inline cudnnTensorFormat_t cudnn_format(Layout l) {
  return l == Layout::nhwc ? CUDNN_TENSOR_NHWC : CUDNN_TENSOR_NCHW;
}
// Where a sample begins, in any layout but lanes.
inline void* cudnn_sample(const View& v, int64_t sample) {
  return v.as<std::byte>() + sample * v.shape().elements_from(1) * size_of(v.spec.dtype);
}
// Descriptors count in int.
bool fits_cudnn(const TensorSpec&);

template <class T>
using CudnnDescriptor = std::unique_ptr<std::remove_pointer_t<T>, cudnnStatus_t (*)(T)>;

// An image, or a matrix as one of 1x1 pixels; no samples count as one (such a kernel is made, not run).
CudnnDescriptor<cudnnTensorDescriptor_t> cudnn_tensor(Cudnn&, const TensorSpec&);
// Weights as the spec's layout has them: [O, I, KH, KW], or [O, KH, KW, I] for nhwc.
CudnnDescriptor<cudnnFilterDescriptor_t> cudnn_filter(Cudnn&, const TensorSpec&);

}  // namespace lockstep
