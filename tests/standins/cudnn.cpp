// SPDX-License-Identifier: Apache-2.0
// Stand-ins for cuDNN's entry points that the program uses: the reference kernels on host memory, on the
// stream of the handle. They refuse what cuDNN refuses (sizes that don't fit, too little workspace), and
// write over all the workspace they are given. Of the algorithms that they offer and that may be taken the
// first fails when it is executed; the other is the last. LOCKSTEP_STANDIN_OFFERS_UP_TO=N: for more than N
// samples they offer none.
#include <cudnn.h>

#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "kernels/conv2d/conv2d.h"
#include "kernels/core/bf16.h"
#include "kernels/core/kernel.h"
#include "kernels/pool2d/pool2d.h"
#include "tests/standins/injection.h"
#include "tests/standins/stream.h"

using namespace lockstep;
using standins::count;
using standins::Fate;
using standins::fate_of;

#define FATE(name) \
  if (fate_of(name) != Fate::succeed) return CUDNN_STATUS_EXECUTION_FAILED

struct cudnnContext {
  cudaStream_t stream = nullptr;
};
struct cudnnTensorStruct {
  TensorSpec spec;
};
struct cudnnFilterStruct {
  TensorSpec spec;
};
struct cudnnConvolutionStruct {
  Conv2dParams p;
  cudnnMathType_t math = CUDNN_DEFAULT_MATH;
};
struct cudnnPoolingStruct {
  Pool2dParams p;
};

namespace {

constexpr int kAlgorithm = 1;         // IMPLICIT_PRECOMP_GEMM, BWD_DATA_ALGO_1, BWD_FILTER_ALGO_1
constexpr int kFailingAlgorithm = 5;  // offered, and not supported when it is executed

struct Operand {
  TensorSpec spec;
  void* data;
};
Operand operand(const TensorSpec& s, const void* data) { return {s, const_cast<void*>(data)}; }
size_t bytes_of(const Operand& o) { return static_cast<size_t>(o.spec.bytes()); }

float get(const Operand& o, int64_t n, int64_t i) {
  const int64_t at = o.spec.offset(n, i);
  const void* const data = standins::real(o.data);
  return o.spec.dtype == DType::bf16 ? float(static_cast<const bf16*>(data)[at])
                                     : static_cast<const float*>(data)[at];
}
void set(const Operand& o, int64_t n, int64_t i, float v) {
  const int64_t at = o.spec.offset(n, i);
  void* const data = standins::real(o.data);
  if (o.spec.dtype == DType::bf16)
    static_cast<bf16*>(data)[at] = bf16(v);
  else
    static_cast<float*>(data)[at] = v;
}

// The reference of `op` on f32 copies in the plain layout.
void run_reference(const char* op, const Params& params, std::span<const Operand> in, const Operand& out) {
  std::vector<TensorSpec> specs;
  std::vector<std::vector<float>> memory;
  for (const Operand& o : in) specs.push_back({DType::f32, o.spec.shape});
  specs.push_back({DType::f32, out.spec.shape});
  std::vector<View> views;
  for (const TensorSpec& s : specs) {
    memory.emplace_back(static_cast<size_t>(s.shape.elements()));
    views.push_back({s, memory.back().data()});
  }
  const auto each = [](const Operand& o, auto f) {
    const int64_t per = o.spec.shape.elements_from(1);
    for (int64_t n = 0; n < o.spec.shape[0]; ++n)
      for (int64_t i = 0; i < per; ++i) f(n, i, n * per + i);
  };
  for (size_t k = 0; k < in.size(); ++k)
    each(in[k],
         [&](int64_t n, int64_t i, int64_t at) { memory[k][static_cast<size_t>(at)] = get(in[k], n, i); });
  const std::span all(views);
  const std::span all_specs(specs);
  const KernelInfo* info = Registry::builtin().find(op, "reference", Device::cpu);
  info->make({params, all_specs.first(in.size()), all_specs.last(1)})
      ->run({all.first(in.size()), all.last(1)});
  each(out,
       [&](int64_t n, int64_t i, int64_t at) { set(out, n, i, memory.back()[static_cast<size_t>(at)]); });
}

template <class T>
cudnnStatus_t create(T** made) {
  *made = new T;
  count(1);
  return CUDNN_STATUS_SUCCESS;
}
template <class T>
cudnnStatus_t destroy(T* made) {
  delete made;
  count(-1);
  return CUDNN_STATUS_SUCCESS;
}

TensorSpec spec_of(cudnnDataType_t type, cudnnTensorFormat_t format, int n, int c, int h, int w) {
  return {type == CUDNN_DATA_BFLOAT16 ? DType::bf16 : DType::f32,
          {n, c, h, w},
          format == CUDNN_TENSOR_NHWC ? Layout::nhwc : Layout::plain};
}
bool legal(cudnnDataType_t type, int n, int c, int h, int w) {
  return (type == CUDNN_DATA_FLOAT || type == CUDNN_DATA_BFLOAT16) && n > 0 && c > 0 && h > 0 && w > 0;
}

bool fit(const cudnnConvolutionStruct& c, const TensorSpec& x, const TensorSpec& w, const TensorSpec& y) {
  return y.shape == Shape{x.shape[0], w.shape[0], c.p.out_h(x.shape[2], w.shape[2]),
                          c.p.out_w(x.shape[3], w.shape[3])} &&
         x.shape[1] == w.shape[1] * c.p.groups && x.layout == y.layout && x.layout == w.layout &&
         x.dtype == y.dtype && x.dtype == w.dtype;
}

size_t workspace_of(const TensorSpec& x, const TensorSpec& w) {
  return static_cast<size_t>(100 + 4 * x.shape[1] + w.shape[0]);  // no multiple of anything
}

template <class Performance>
cudnnStatus_t offer(const cudnnConvolutionStruct& c, const TensorSpec& x, const TensorSpec& w,
                    const TensorSpec& y, int most, int* returned, Performance* all) {
  if (!fit(c, x, w, y)) return CUDNN_STATUS_BAD_PARAM;
  if (most < 6) return CUDNN_STATUS_BAD_PARAM;
  using Algorithm = decltype(all->algo);
  const auto entry = [&](int i, int algorithm, cudnnStatus_t status, size_t memory,
                         cudnnDeterminism_t determinism, cudnnMathType_t math) {
    all[i] = {};
    all[i].algo = static_cast<Algorithm>(algorithm);
    all[i].status = status, all[i].memory = memory, all[i].determinism = determinism, all[i].mathType = math;
  };
  const size_t memory = workspace_of(x, w);
  entry(0, 2, CUDNN_STATUS_NOT_SUPPORTED, 0, CUDNN_DETERMINISTIC, c.math);
  entry(1, 0, CUDNN_STATUS_SUCCESS, 0, CUDNN_NON_DETERMINISTIC, c.math);
  entry(2, 3, CUDNN_STATUS_SUCCESS, size_t{1} << 40, CUDNN_DETERMINISTIC, c.math);
  entry(3, kFailingAlgorithm, CUDNN_STATUS_SUCCESS, 2 * memory, CUDNN_DETERMINISTIC, c.math);
  // For fp32 this would mean TF32.
  entry(4, x.dtype == DType::f32 ? 4 : kAlgorithm, CUDNN_STATUS_SUCCESS, memory, CUDNN_DETERMINISTIC,
        CUDNN_DEFAULT_MATH);
  entry(5, kAlgorithm, CUDNN_STATUS_SUCCESS, memory, CUDNN_DETERMINISTIC, c.math);
  *returned = standins::offers_for(x.shape[0]) ? 6 : 2;
  return CUDNN_STATUS_SUCCESS;
}

bool plain_product(const void* alpha, const void* beta) {
  return *static_cast<const float*>(alpha) == 1 && *static_cast<const float*>(beta) == 0;
}

// What every convolution checks, and does with its workspace.
cudnnStatus_t convolve(cudnnHandle_t h, const char* op, const cudnnConvolutionStruct& c, int algorithm,
                       const TensorSpec& x, const TensorSpec& w, const TensorSpec& y, void* workspace,
                       size_t bytes, const void* alpha, const void* beta, std::vector<Operand> in,
                       const Operand& out) {
  if (!fit(c, x, w, y) || !plain_product(alpha, beta)) return CUDNN_STATUS_BAD_PARAM;
  if (algorithm == kFailingAlgorithm) return CUDNN_STATUS_NOT_SUPPORTED;
  if (algorithm != kAlgorithm) return CUDNN_STATUS_BAD_PARAM;
  if (x.dtype == DType::f32 && c.math != CUDNN_FMA_MATH) return CUDNN_STATUS_BAD_PARAM;
  if (bytes < workspace_of(x, w)) return CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT;
  if (reinterpret_cast<uintptr_t>(workspace) % 256 != 0) return CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER;
  std::vector<standins::Access> touched = {standins::writes(workspace, bytes),
                                           standins::writes(out.data, bytes_of(out))};
  for (const Operand& o : in) touched.push_back(standins::reads(o.data, bytes_of(o)));
  standins::enqueue(h->stream, op, std::move(touched), [=, params = Params(Conv2dParams(c.p))] {
    std::memset(standins::real(workspace), 0x5A, bytes);
    run_reference(op, params, in, out);
  });
  return CUDNN_STATUS_SUCCESS;
}

}  // namespace

extern "C" {

size_t cudnnGetVersion() { return CUDNN_VERSION; }
const char* cudnnGetErrorString(cudnnStatus_t s) {
  return s == CUDNN_STATUS_EXECUTION_FAILED ? "injected failure"
         : s == CUDNN_STATUS_NOT_SUPPORTED  ? "not supported"
                                            : "refused by the stand-in";
}
cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  FATE("cudnnCreate");
  *handle = new cudnnContext;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  FATE("cudnnSetStream");
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t* d) {
  FATE("cudnnCreateTensorDescriptor");
  return create(d);
}
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t d) { return destroy(d); }
cudnnStatus_t cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t d, cudnnTensorFormat_t format,
                                         cudnnDataType_t type, int n, int c, int h, int w) {
  FATE("cudnnSetTensor4dDescriptor");
  if (!legal(type, n, c, h, w)) return CUDNN_STATUS_BAD_PARAM;
  d->spec = spec_of(type, format, n, c, h, w);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t* d) {
  FATE("cudnnCreateFilterDescriptor");
  return create(d);
}
cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t d) { return destroy(d); }
cudnnStatus_t cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t d, cudnnDataType_t type,
                                         cudnnTensorFormat_t format, int k, int c, int h, int w) {
  FATE("cudnnSetFilter4dDescriptor");
  if (!legal(type, k, c, h, w)) return CUDNN_STATUS_BAD_PARAM;
  d->spec = spec_of(type, format, k, c, h, w);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t* d) {
  FATE("cudnnCreateConvolutionDescriptor");
  return create(d);
}
cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t d) { return destroy(d); }
cudnnStatus_t cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t d, int pad_h, int pad_w,
                                              int stride_h, int stride_w, int dilation_h, int dilation_w,
                                              cudnnConvolutionMode_t mode, cudnnDataType_t compute) {
  FATE("cudnnSetConvolution2dDescriptor");
  if (mode != CUDNN_CROSS_CORRELATION || compute != CUDNN_DATA_FLOAT) return CUDNN_STATUS_BAD_PARAM;
  d->p.pad_top = d->p.pad_bottom = pad_h, d->p.pad_left = d->p.pad_right = pad_w;
  d->p.stride_h = stride_h, d->p.stride_w = stride_w;
  d->p.dilation_h = dilation_h, d->p.dilation_w = dilation_w;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t d, int groups) {
  FATE("cudnnSetConvolutionGroupCount");
  d->p.groups = groups;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t d, cudnnMathType_t math) {
  FATE("cudnnSetConvolutionMathType");
  d->math = math;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t, cudnnTensorDescriptor_t x,
                                                     cudnnFilterDescriptor_t w,
                                                     cudnnConvolutionDescriptor_t c,
                                                     cudnnTensorDescriptor_t y, int most, int* returned,
                                                     cudnnConvolutionFwdAlgoPerf_t* all) {
  FATE("cudnnGetConvolutionForwardAlgorithm_v7");
  return offer(*c, x->spec, w->spec, y->spec, most, returned, all);
}
cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnnHandle_t, cudnnFilterDescriptor_t w,
                                                          cudnnTensorDescriptor_t y,
                                                          cudnnConvolutionDescriptor_t c,
                                                          cudnnTensorDescriptor_t x, int most, int* returned,
                                                          cudnnConvolutionBwdDataAlgoPerf_t* all) {
  FATE("cudnnGetConvolutionBackwardDataAlgorithm_v7");
  return offer(*c, x->spec, w->spec, y->spec, most, returned, all);
}
cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(
    cudnnHandle_t, cudnnTensorDescriptor_t x, cudnnTensorDescriptor_t y, cudnnConvolutionDescriptor_t c,
    cudnnFilterDescriptor_t w, int most, int* returned, cudnnConvolutionBwdFilterAlgoPerf_t* all) {
  FATE("cudnnGetConvolutionBackwardFilterAlgorithm_v7");
  return offer(*c, x->spec, w->spec, y->spec, most, returned, all);
}

cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t h, const void* alpha, cudnnTensorDescriptor_t xd,
                                      const void* x, cudnnFilterDescriptor_t wd, const void* w,
                                      cudnnConvolutionDescriptor_t c, cudnnConvolutionFwdAlgo_t algorithm,
                                      void* workspace, size_t bytes, const void* beta,
                                      cudnnTensorDescriptor_t yd, void* y) {
  FATE("cudnnConvolutionForward");
  return convolve(h, "conv2d", *c, algorithm, xd->spec, wd->spec, yd->spec, workspace, bytes, alpha, beta,
                  {operand(xd->spec, x), operand(wd->spec, w)}, operand(yd->spec, y));
}
cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t h, const void* alpha, cudnnFilterDescriptor_t wd,
                                           const void* w, cudnnTensorDescriptor_t yd, const void* dy,
                                           cudnnConvolutionDescriptor_t c,
                                           cudnnConvolutionBwdDataAlgo_t algorithm, void* workspace,
                                           size_t bytes, const void* beta, cudnnTensorDescriptor_t xd,
                                           void* dx) {
  FATE("cudnnConvolutionBackwardData");
  return convolve(h, "conv2d_input_grad", *c, algorithm, xd->spec, wd->spec, yd->spec, workspace, bytes,
                  alpha, beta, {operand(yd->spec, dy), operand(wd->spec, w)}, operand(xd->spec, dx));
}
cudnnStatus_t cudnnConvolutionBackwardFilter(cudnnHandle_t h, const void* alpha, cudnnTensorDescriptor_t xd,
                                             const void* x, cudnnTensorDescriptor_t yd, const void* dy,
                                             cudnnConvolutionDescriptor_t c,
                                             cudnnConvolutionBwdFilterAlgo_t algorithm, void* workspace,
                                             size_t bytes, const void* beta, cudnnFilterDescriptor_t wd,
                                             void* dw) {
  FATE("cudnnConvolutionBackwardFilter");
  return convolve(h, "conv2d_weight_grad", *c, algorithm, xd->spec, wd->spec, yd->spec, workspace, bytes,
                  alpha, beta, {operand(xd->spec, x), operand(yd->spec, dy)}, operand(wd->spec, dw));
}

cudnnStatus_t cudnnCreatePoolingDescriptor(cudnnPoolingDescriptor_t* d) {
  FATE("cudnnCreatePoolingDescriptor");
  return create(d);
}
cudnnStatus_t cudnnDestroyPoolingDescriptor(cudnnPoolingDescriptor_t d) { return destroy(d); }
cudnnStatus_t cudnnSetPooling2dDescriptor(cudnnPoolingDescriptor_t d, cudnnPoolingMode_t mode,
                                          cudnnNanPropagation_t, int kernel_h, int kernel_w, int pad_h,
                                          int pad_w, int stride_h, int stride_w) {
  FATE("cudnnSetPooling2dDescriptor");
  d->p = {.kernel_h = kernel_h,
          .kernel_w = kernel_w,
          .stride_h = stride_h,
          .stride_w = stride_w,
          .pad_h = pad_h,
          .pad_w = pad_w,
          .count_include_pad = mode == CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING};
  return mode == CUDNN_POOLING_MAX ? CUDNN_STATUS_BAD_PARAM : CUDNN_STATUS_SUCCESS;
}
static cudnnStatus_t pool(cudnnHandle_t h, const char* op, const Pool2dParams& p, const TensorSpec& x,
                          const TensorSpec& y, const void* alpha, const void* beta, const Operand& in,
                          const Operand& out) {
  const Shape expected = {x.shape[0], x.shape[1], p.out_h(x.shape[2]), p.out_w(x.shape[3])};
  if (y.shape != expected || x.layout != y.layout || !plain_product(alpha, beta))
    return CUDNN_STATUS_BAD_PARAM;
  standins::enqueue(
      h->stream, op, {standins::reads(in.data, bytes_of(in)), standins::writes(out.data, bytes_of(out))},
      [=, params = Params(Pool2dParams(p))] { run_reference(op, params, std::span(&in, 1), out); });
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnPoolingForward(cudnnHandle_t h, cudnnPoolingDescriptor_t d, const void* alpha,
                                  cudnnTensorDescriptor_t xd, const void* x, const void* beta,
                                  cudnnTensorDescriptor_t yd, void* y) {
  FATE("cudnnPoolingForward");
  return pool(h, "avg_pool2d", d->p, xd->spec, yd->spec, alpha, beta, operand(xd->spec, x),
              operand(yd->spec, y));
}
cudnnStatus_t cudnnPoolingBackward(cudnnHandle_t h, cudnnPoolingDescriptor_t d, const void* alpha,
                                   cudnnTensorDescriptor_t yd, const void* y, cudnnTensorDescriptor_t dyd,
                                   const void* dy, cudnnTensorDescriptor_t xd, const void* x,
                                   const void* beta, cudnnTensorDescriptor_t dxd, void* dx) {
  FATE("cudnnPoolingBackward");
  if (!y || !x || yd->spec != dyd->spec || xd->spec != dxd->spec) return CUDNN_STATUS_BAD_PARAM;
  return pool(h, "avg_pool2d_grad", d->p, dxd->spec, dyd->spec, alpha, beta, operand(dyd->spec, dy),
              operand(dxd->spec, dx));
}

}  // extern "C"
