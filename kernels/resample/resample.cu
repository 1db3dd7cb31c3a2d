// SPDX-License-Identifier: Apache-2.0
// Upsampling on a GPU: a thread writes one number, or 16 bytes of numbers of one pixel (channels last).
#include "kernels/gpu/device_code.h"
#include "kernels/gpu/divider.cuh"
#include "kernels/gpu/vectors.h"
#include "kernels/resample/geometry.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kThreads = 256;

// Vector `part` of pixel (row, column), the rows of all planes counted through.
struct Place {
  int row, column, part;
};
struct Pixels {
  Divider parts, columns;  // vectors of a pixel, pixels of a row
  __device__ __forceinline__ Place find(int i) const {
    const int pixel = parts.divide(i), row = columns.divide(pixel);
    return {row, columns.rest(pixel, row), parts.rest(i, pixel)};
  }
};

// resample::Axis. Products of its sizes fit 32 bits.
struct Axis {
  Divider small, large;
  int small_count, large_count;
  explicit Axis(const resample::Axis& a)
      : small(a.small),
        large(a.large),
        small_count(static_cast<int>(a.small)),
        large_count(static_cast<int>(a.large)) {}
  __device__ __forceinline__ int source(int i) const { return large.divide(i * small_count); }
  __device__ __forceinline__ int first(int i) const {
    return small.divide(i * large_count + small_count - 1);
  }
};

template <class T, int kWidth>
__global__ void upsample(Pixels g, Axis h, Axis w, const T* x, T* y, int small_row, int v, int count) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= count) return;
  const Place o = g.find(i);
  const int plane = h.large.divide(o.row), row = plane * h.small_count + h.source(h.large.rest(o.row, plane));
  float f[kWidth];
  load_floats(f, x + int64_t{row} * small_row + w.source(o.column) * v + o.part * kWidth);
  store_floats(y + int64_t{i} * kWidth, f);
}

template <class T, int kWidth>
__global__ void upsample_grad(Pixels g, Axis h, Axis w, const T* dy, T* dx, int large_row, int v, int count) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= count) return;
  const Place o = g.find(i);
  const int plane = h.small.divide(o.row), row = h.small.rest(o.row, plane);
  const int top = h.first(row), bottom = h.first(row + 1), left = w.first(o.column),
            right = w.first(o.column + 1);
  const T* first = dy + int64_t{plane} * h.large_count * large_row + o.part * kWidth;
  float sum[kWidth] = {};
  for (int r = top; r < bottom; ++r)
    for (int s = left; s < right; ++s) {
      float f[kWidth];
      load_floats(f, first + int64_t{r} * large_row + s * v);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum[k] += f[k];
    }
  store_floats(dx + int64_t{i} * kWidth, sum);
}

template <class T, bool kForward>
void run(const UpsampleNearest2dParams& p, const KernelArgs& args) {
  const resample::Geometry g(p, (kForward ? args.in[0] : args.out[0]).spec);
  const int64_t small = g.h.small * g.small_row(), large = g.h.large * g.large_row();
  if (small == 0) return;
  const Axis h(g.h), w(g.w);
  with_width<T>(g.v % kVector<T> == 0, [&](auto width) {
    const Pixels pixels{Divider(g.v / width), Divider(kForward ? g.w.large : g.w.small)};
    in_parts(g.planes, large, [&](int64_t first, int64_t planes) {
      const int64_t count = planes * (kForward ? large : small) / width;
      const auto start = [&](auto kernel, int64_t from_plane, int64_t to_plane, int64_t from_row) {
        launch(kernel, blocks(count, kThreads), kThreads, 0, args.stream, pixels, h, w,
               args.in[0].as<const T>() + first * from_plane, args.out[0].as<T>() + first * to_plane,
               from_row, g.v, count);
      };
      if constexpr (kForward)
        start(upsample<T, width>, small, large, g.small_row());
      else
        start(upsample_grad<T, width>, large, small, g.large_row());
    });
  });
}

template <class T>
void add_upsamplings(Registry& r, Device device) {
  const auto add = [&](const char* op, auto make) {
    r.add({.op = op,
           .name = "direct",
           .device = device,
           .layout = LayoutClass::any,
           .dtype = dtype_of<T>,
           .bit_exact = {.threads = true, .shard = true},
           .make = [make](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             return of_one_type<T>(q) && one_gpu_layout(q) ? make(q) : nullptr;
           }});
  };
  add("upsample_nearest2d", stateless<UpsampleNearest2dParams>(run<T, true>));
  add("upsample_nearest2d_grad", stateless<UpsampleNearest2dParams>(run<T, false>));
}

}  // namespace

void register_resample(Registry& r, Device device) {
  add_upsamplings<float>(r, device);
  add_upsamplings<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
