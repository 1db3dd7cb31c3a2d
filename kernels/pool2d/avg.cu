// SPDX-License-Identifier: Apache-2.0
// Average pooling on a GPU, as max.cu; large windows of plain images are shared by a warp.
#include "kernels/gpu/device_code.h"
#include "kernels/gpu/reduce.h"
#include "kernels/pool2d/planes.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kLargeWindow = 32;

struct Averages {
  bool adaptive, count_padding;
};

struct Extent {
  int first, last;  // pixels [first, last) of the image
  int counted;      // this axis' factor of the divisor
};
__device__ __forceinline__ Extent extent(const Averages& a, int window, int size, int out, int kernel,
                                         int stride, int pad) {
  if (a.adaptive) {
    const int first = static_cast<int>(int64_t{window} * size / out);
    const int last = static_cast<int>(((int64_t{window} + 1) * size + out - 1) / out);
    return {first, last, last - first};
  }
  const int start = window * stride - pad, end = start + kernel;
  const int first = max(start, 0), last = min(end, size);
  return {first, last, a.count_padding ? min(end, size + pad) - start : last - first};
}
__device__ __forceinline__ Extent rows_of(const Planes& g, const Averages& a, int window) {
  return extent(a, window, g.h, g.p, g.kernel_h, g.stride_h, g.pad_h);
}
__device__ __forceinline__ Extent columns_of(const Planes& g, const Averages& a, int window) {
  return extent(a, window, g.w, g.q, g.kernel_w, g.stride_w, g.pad_w);
}

template <class T, int kWidth>
__global__ void average(Planes g, Averages a, const T* x, T* y, unsigned count) {
  const unsigned i = blockIdx.x * kPoolThreads + threadIdx.x;
  if (i >= count) return;
  const Place o = place(i, g.v / kWidth, g.p, g.q);
  const Extent rows = rows_of(g, a, o.row), columns = columns_of(g, a, o.column);
  const T* image = x + int64_t{o.plane} * g.h * g.w * g.v + o.part * kWidth;
  float sum[kWidth] = {};
  for (int r = rows.first; r < rows.last; ++r)
    for (int s = columns.first; s < columns.last; ++s) {
      float f[kWidth];
      load_floats(f, image + static_cast<unsigned>(r * g.w + s) * g.v);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum[k] += f[k];
    }
  const float divisor = static_cast<float>(rows.counted * columns.counted);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) sum[k] /= divisor;
  store_floats(y + int64_t{i} * kWidth, sum);
}

// Plain images, a warp a window.
template <class T>
__global__ void average_by_warp(Planes g, Averages a, const T* x, T* y, unsigned count) {
  const unsigned i = blockIdx.x * (kPoolThreads / 32) + threadIdx.x / 32;
  if (i >= count) return;
  const Place o = place(i, 1, g.p, g.q);
  const Extent rows = rows_of(g, a, o.row), columns = columns_of(g, a, o.column);
  const int across = columns.last - columns.first, pixels = (rows.last - rows.first) * across;
  const T* image = x + int64_t{o.plane} * g.h * g.w + rows.first * g.w + columns.first;
  float sum = 0;
  for (int k = static_cast<int>(threadIdx.x % 32); k < pixels; k += 32)
    sum += float(image[k / across * g.w + k % across]);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) y[i] = T(sum / static_cast<float>(rows.counted * columns.counted));
}

struct Windows {
  int first, last;  // [first, last]: those that have a pixel
};
__device__ __forceinline__ Windows windows_of(const Averages& a, int pixel, int size, int out, int kernel,
                                              int stride, int pad) {
  if (a.adaptive)
    return {static_cast<int>(int64_t{pixel} * out / size),
            static_cast<int>(((int64_t{pixel} + 1) * out + size - 1) / size) - 1};
  return {first_window(pixel, pad, kernel, stride), last_window(pixel, pad, stride, out)};
}

template <class T, int kWidth>
__global__ void average_grad(Planes g, Averages a, const T* dy, T* dx, unsigned count) {
  const unsigned i = blockIdx.x * kPoolThreads + threadIdx.x;
  if (i >= count) return;
  const Place x = place(i, g.v / kWidth, g.h, g.w);
  const Windows rows = windows_of(a, x.row, g.h, g.p, g.kernel_h, g.stride_h, g.pad_h);
  const Windows columns = windows_of(a, x.column, g.w, g.q, g.kernel_w, g.stride_w, g.pad_w);
  const T* image = dy + int64_t{x.plane} * g.p * g.q * g.v + x.part * kWidth;
  float sum[kWidth] = {};
  for (int row = rows.first; row <= rows.last; ++row) {
    const int counted = rows_of(g, a, row).counted;
    for (int column = columns.first; column <= columns.last; ++column) {
      const float divisor = static_cast<float>(counted * columns_of(g, a, column).counted);
      float f[kWidth];
      load_floats(f, image + static_cast<unsigned>(row * g.q + column) * g.v);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum[k] += f[k] / divisor;
    }
  }
  store_floats(dx + int64_t{i} * kWidth, sum);
}

template <class T, bool kForward>
class Average final : public Kernel {
 public:
  Average(const Pool2dParams& p, const TensorSpec& x)
      : g_(planes_of(p, x)), a_{p.adaptive, p.count_include_pad} {
    large_ =
        g_.v == 1 && (p.adaptive ? g_.h / g_.p * (g_.w / g_.q) : g_.kernel_h * g_.kernel_w) >= kLargeWindow;
  }

  void run(const KernelArgs& args) override {
    const View &from = args.in[0], &to = args.out[0];
    const Shape& image = kForward ? from.shape() : to.shape();
    const int64_t x_plane = int64_t{g_.h} * g_.w * g_.v, y_plane = int64_t{g_.p} * g_.q * g_.v;
    const int64_t from_plane = kForward ? x_plane : y_plane, to_plane = kForward ? y_plane : x_plane;
    in_parts(image[0] * image[1] / g_.v, std::max(x_plane, y_plane), [&](int64_t first, int64_t planes) {
      const auto start = [&](auto kernel, int64_t numbers, int64_t threads) {
        launch(kernel, blocks(planes * to_plane / numbers * threads, kPoolThreads), kPoolThreads, 0,
               args.stream, g_, a_, from.as<T>() + first * from_plane, to.as<T>() + first * to_plane,
               planes * to_plane / numbers);
      };
      const bool wide = g_.v % kVector<T> == 0;
      if constexpr (kForward) {
        if (large_)
          start(average_by_warp<T>, 1, 32);
        else if (wide)
          start(average<T, kVector<T>>, kVector<T>, 1);
        else
          start(average<T, 1>, 1, 1);
      } else {
        if (wide)
          start(average_grad<T, kVector<T>>, kVector<T>, 1);
        else
          start(average_grad<T, 1>, 1, 1);
      }
    });
  }

 private:
  Planes g_;
  Averages a_;
  bool large_;
};

template <class T, bool kForward>
void add_average(Registry& r, Device device) {
  r.add({.op = kForward ? "avg_pool2d" : "avg_pool2d_grad",
         .name = kForward ? "direct" : "gather",
         .device = device,
         .layout = LayoutClass::any,
         .dtype = dtype_of<T>,
         .bit_exact = {.threads = true, .shard = true},
         .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           if (!one_gpu_layout(q) || q.in[0].dtype != dtype_of<T> || q.out[0].dtype != dtype_of<T>)
             return nullptr;
           return std::make_unique<Average<T, kForward>>(q.params.as<Pool2dParams>(),
                                                         kForward ? q.in[0] : q.out[0]);
         }});
}

}  // namespace

void register_avg_pool2d(Registry& r, Device device) {
  add_average<float, true>(r, device);
  add_average<float, false>(r, device);
  add_average<bf16, true>(r, device);
  add_average<bf16, false>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
