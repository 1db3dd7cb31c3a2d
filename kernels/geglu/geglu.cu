// SPDX-License-Identifier: Apache-2.0
// A thread has one number of y, or 16 bytes of them.
#include "kernels/geglu/geglu.h"
#include "kernels/geglu/kernels.h"
#include "kernels/gpu/activate.cuh"
#include "kernels/gpu/device_code.h"
#include "kernels/gpu/divider.cuh"
#include "kernels/gpu/vectors.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kThreads = 256;

// Where vector i of y has its values in x, which are `parts` vectors before its gates.
struct Halves {
  Divider parts;  // vectors of a row of y
  int count;
  template <int kWidth>
  __device__ __forceinline__ int64_t value(int i) const {
    return (int64_t{i} + int64_t{parts.divide(i)} * count) * kWidth;
  }
};

template <class T, int kWidth>
__global__ void gate(const T* x, T* y, Halves h, int count) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= count) return;
  const T* from = x + h.value<kWidth>(i);
  float v[kWidth], g[kWidth];
  load_floats(v, from), load_floats(g, from + h.count * kWidth);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) v[k] *= g[k] * normal_cdf(g[k]);
  store_floats(y + int64_t{i} * kWidth, v);
}

template <class T, int kWidth>
__global__ void gate_grad(const T* x, const T* dy, T* dx, Halves h, int count) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= count) return;
  const int64_t at = h.value<kWidth>(i);
  float v[kWidth], g[kWidth], d[kWidth];
  load_floats(v, x + at), load_floats(g, x + at + h.count * kWidth), load_floats(d, dy + int64_t{i} * kWidth);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    const float slope = gelu_slope(g[k]);
    g[k] = d[k] * g[k] * normal_cdf(g[k]), v[k] = d[k] * v[k] * slope;
  }
  store_floats(dx + at, g), store_floats(dx + at + h.count * kWidth, v);
}

// f(kernel's width, Halves, vectors, first row) for parts of the rows of y.
template <class T, class F>
void in_vectors(const View& y, F f) {
  const int64_t c = geglu::columns(y);
  if (c == 0) return;
  with_width<T>(c % kVector<T> == 0, [&](auto width) {
    in_parts(geglu::rows(y), 2 * c, [&](int64_t first, int64_t rows) {
      f(width, Halves{Divider(c / width), static_cast<int>(c / width)}, rows * (c / width), first * c);
    });
  });
}

template <class T>
void forward(const NoParams&, const KernelArgs& args) {
  in_vectors<T>(args.out[0], [&](auto width, const Halves& h, int64_t count, int64_t first) {
    launch(gate<T, width>, blocks(count, kThreads), kThreads, 0, args.stream,
           args.in[0].as<const T>() + 2 * first, args.out[0].as<T>() + first, h, count);
  });
}

template <class T>
void backward(const NoParams&, const KernelArgs& args) {
  in_vectors<T>(args.in[1], [&](auto width, const Halves& h, int64_t count, int64_t first) {
    launch(gate_grad<T, width>, blocks(count, kThreads), kThreads, 0, args.stream,
           args.in[0].as<const T>() + 2 * first, args.in[1].as<const T>() + first,
           args.out[0].as<T>() + 2 * first, h, count);
  });
}

template <class T>
void add_geglu(Registry& r, Device device) {
  const auto add = [&](const char* op, auto f) {
    r.add({.op = op,
           .name = "direct",
           .device = device,
           .layout = LayoutClass::plain,
           .dtype = dtype_of<T>,
           .bit_exact = {.threads = true, .shard = true},
           .make = [make = stateless<NoParams>(f)](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             return of_one_type<T>(q) ? make(q) : nullptr;
           }});
  };
  add("geglu", forward<T>);
  add("geglu_grad", backward<T>);
}

}  // namespace

void register_geglu(Registry& r, Device device) {
  add_geglu<float>(r, device);
  add_geglu<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
