// SPDX-License-Identifier: Apache-2.0
// Between plain and nhwc: a transposition of each sample, through shared memory where it has many channels.
#include "kernels/gpu/device_code.h"
#include "kernels/gpu/vectors.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 32, kRowsAtOnce = kThreads / kTile;
constexpr int kNarrow = 8;  // so few channels that neighbouring threads share sectors anyway

// y = x, kBytes a thread.
template <int kBytes>
__global__ void copy(const unsigned char* x, unsigned char* y, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  if constexpr (kBytes == 16)
    store16(y + i * 16, load16(x + i * 16));
  else
    store_bytes<kBytes>(y + i * kBytes, load_bytes<kBytes>(x + i * kBytes));
}

// A thread takes one number, counted in nhwc's order.
template <class T, bool kToNhwc>
__global__ void transpose_narrow(const T* x, T* y, unsigned count, unsigned channels, unsigned pixels) {
  const unsigned nhwc = blockIdx.x * kThreads + threadIdx.x;
  if (nhwc >= count) return;
  const unsigned c = nhwc % channels, pixel = nhwc / channels, n = pixel / pixels;
  const unsigned plain = (n * channels + c) * pixels + pixel % pixels;
  if constexpr (kToNhwc)
    y[nhwc] = x[plain];
  else
    y[plain] = x[nhwc];
}

// y[n][col][row] = x[n][row][col]. A block takes one tile of one sample.
template <class T>
__global__ void transpose(const T* x, T* y, unsigned rows, unsigned cols) {
  __shared__ T
      tile[kTile][kTile + 4 / sizeof(T)];  // a word more, so that a column's numbers lie in different banks
  const unsigned across = (cols + kTile - 1) / kTile, down = (rows + kTile - 1) / kTile;
  const unsigned col0 = blockIdx.x % across * kTile, row0 = blockIdx.x / across % down * kTile;
  const int64_t sample = int64_t{blockIdx.x / (across * down)} * rows * cols;
  const unsigned lane = threadIdx.x % kTile, first = threadIdx.x / kTile;
#pragma unroll
  for (unsigned r = first; r < kTile; r += kRowsAtOnce)
    if (row0 + r < rows && col0 + lane < cols)
      tile[r][lane] = x[sample + int64_t{row0 + r} * cols + col0 + lane];
  __syncthreads();
#pragma unroll
  for (unsigned r = first; r < kTile; r += kRowsAtOnce)
    if (col0 + r < cols && row0 + lane < rows)
      y[sample + int64_t{col0 + r} * rows + row0 + lane] = tile[lane][r];
}

template <class T>
class Transpose final : public Kernel {
 public:
  void run(const KernelArgs& args) override {
    const View &x = args.in[0], &y = args.out[0];
    const int64_t channels = x.shape().rank() > 1 ? x.dim(1) : 1, pixels = x.shape().elements_from(2);
    const bool same = x.spec.layout == y.spec.layout || channels == 1 || pixels == 1;
    if (same) return copy_all(args);
    const bool to_nhwc = y.spec.layout == Layout::nhwc;
    in_parts(x.dim(0), channels * pixels, [&](int64_t first, int64_t samples) {
      const T* from = x.as<T>() + first * channels * pixels;
      T* to = y.as<T>() + first * channels * pixels;
      if (channels <= kNarrow) {
        const int64_t count = samples * channels * pixels;
        launch(to_nhwc ? transpose_narrow<T, true> : transpose_narrow<T, false>, blocks(count, kThreads),
               kThreads, 0, args.stream, from, to, count, channels, pixels);
      } else {
        const int64_t rows = to_nhwc ? channels : pixels, cols = to_nhwc ? pixels : channels;
        launch(transpose<T>, static_cast<unsigned>(samples) * blocks(rows, kTile) * blocks(cols, kTile),
               kThreads, 0, args.stream, from, to, rows, cols);
      }
    });
  }

 private:
  static void copy_all(const KernelArgs& args) {
    const int64_t bytes = args.in[0].spec.bytes();
    constexpr int kSize = sizeof(T);
    const bool wide = bytes % 16 == 0;
    const int64_t count = bytes / (wide ? 16 : kSize);
    launch(wide ? copy<16> : copy<kSize>, blocks(count, kThreads), kThreads, 0, args.stream,
           args.in[0].as<unsigned char>(), args.out[0].as<unsigned char>(), count);
  }
};

template <class T>
void add(Registry& r, Device device) {
  r.add({.op = "reorder",
         .name = "transpose",
         .device = device,
         .layout = LayoutClass::any,
         .dtype = dtype_of<T>,
         .bit_exact = {.threads = true, .shard = true},
         .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           for (const TensorSpec& s : {q.in[0], q.out[0]})
             if (s.layout == Layout::lanes || s.dtype != dtype_of<T> ||
                 s.shape.elements_from(1) > kMostElements)
               return nullptr;
           return std::make_unique<Transpose<T>>();
         }});
}

}  // namespace

void register_reorder(Registry& r, Device device) {
  add<float>(r, device);
  add<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
