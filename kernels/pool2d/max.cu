// SPDX-License-Identifier: Apache-2.0
// Max pooling on a GPU: a thread takes the windows (backward: the pixels) of one number, or of 16 bytes of
// numbers that lie side by side: channels in nhwc, and in plain a row of 2x2 windows. Backward gathers, in
// the order of the windows.
#include <cmath>

#include "kernels/gpu/device_code.h"
#include "kernels/pool2d/planes.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

// NaN is the largest; of equals the first stays.
__device__ __forceinline__ bool beats(float v, float best) { return v > best || (v != v && best == best); }

// What relu leaves of a maximum and its position.
__device__ __forceinline__ void apply_relu(float& best, int& at) {
  if (best <= 0) best = 0, at = Pool2dParams::kNoMaximum;
}

template <class T, int kWidth>
__global__ void max_windows(Planes g, bool relu, const T* x, T* y, uint8_t* index, unsigned count) {
  const unsigned i = blockIdx.x * kPoolThreads + threadIdx.x;
  if (i >= count) return;
  const unsigned parts = g.v / kWidth;
  const Place o = place(i, parts, g.p, g.q);
  const int top = o.row * g.stride_h - g.pad_h, left = o.column * g.stride_w - g.pad_w;
  const T* image = x + int64_t{o.plane} * g.h * g.w * g.v + o.part * kWidth;
  float best[kWidth];
  int at[kWidth];
#pragma unroll
  for (int k = 0; k < kWidth; ++k) best[k] = -INFINITY, at[k] = -1;
  for (int r = 0; r < g.kernel_h; ++r) {
    const int row = top + r * g.dilation_h;
    if (row < 0 || row >= g.h) continue;
    for (int s = 0; s < g.kernel_w; ++s) {
      const int column = left + s * g.dilation_w;
      if (column < 0 || column >= g.w) continue;
      float f[kWidth];
      load_floats(f, image + static_cast<unsigned>(row * g.w + column) * g.v);
#pragma unroll
      for (int k = 0; k < kWidth; ++k)
        if (at[k] < 0 || beats(f[k], best[k])) best[k] = f[k], at[k] = r * g.kernel_w + s;
    }
  }
  bytes_t<kWidth> positions = 0;
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    if (relu) apply_relu(best[k], at[k]);
    positions |= static_cast<bytes_t<kWidth>>(static_cast<bytes_t<kWidth>>(max(at[k], 0)) << (8 * k));
  }
  store_floats(y + int64_t{i} * kWidth, best);
  store_bytes<kWidth>(index + int64_t{i} * kWidth, positions);
}

template <class T, int kWidth>
__global__ void max_windows_grad(Planes g, const T* dy, const uint8_t* index, T* dx, unsigned count) {
  const unsigned i = blockIdx.x * kPoolThreads + threadIdx.x;
  if (i >= count) return;
  const unsigned parts = g.v / kWidth;
  const Place x = place(i, parts, g.h, g.w);
  const int64_t image = int64_t{x.plane} * g.p * g.q * g.v + x.part * kWidth;
  const int last_row = last_window(x.row, g.pad_h, g.stride_h, g.p);
  const int last_column = last_window(x.column, g.pad_w, g.stride_w, g.q);
  const int first_row = first_window(x.row, g.pad_h, g.dilation_h * (g.kernel_h - 1) + 1, g.stride_h);
  const int first_column = first_window(x.column, g.pad_w, g.dilation_w * (g.kernel_w - 1) + 1, g.stride_w);
  float sum[kWidth] = {};
  for (int row = first_row; row <= last_row; ++row) {
    const int down = x.row + g.pad_h - row * g.stride_h;
    const int r = g.dilation_h == 1 ? down : down / g.dilation_h;
    if (r * g.dilation_h != down) continue;
    for (int column = first_column; column <= last_column; ++column) {
      const int across = x.column + g.pad_w - column * g.stride_w;
      const int s = g.dilation_w == 1 ? across : across / g.dilation_w;
      if (s * g.dilation_w != across) continue;
      const int64_t o = image + static_cast<unsigned>(row * g.q + column) * g.v;
      float f[kWidth];
      load_floats(f, dy + o);
      const auto positions = load_bytes<kWidth>(index + o);
      const auto here = static_cast<unsigned>(r * g.kernel_w + s);
#pragma unroll
      for (int k = 0; k < kWidth; ++k)
        if ((static_cast<unsigned>(positions >> (8 * k)) & 255) == here) sum[k] += f[k];
    }
  }
  store_floats(dx + int64_t{i} * kWidth, sum);
}

// --- plain, 2x2 windows edge to edge, no rim: 16 bytes of two rows are kWindows windows, whose maxima are 8
// bytes ---

template <class T>
constexpr int kWindows = kVector<T> / 2;

template <class T>
__device__ __forceinline__ uint64_t pack(const float (&f)[kWindows<T>]) {
  uint64_t w = 0;
#pragma unroll
  for (int k = 0; k < kWindows<T>; ++k) {
    if constexpr (sizeof(T) == 4)
      w |= uint64_t{__float_as_uint(f[k])} << (32 * k);
    else
      w |= uint64_t{T(f[k]).bits} << (16 * k);
  }
  return w;
}
template <class T>
__device__ __forceinline__ float unpack(uint64_t w, int k) {
  if constexpr (sizeof(T) == 4) {
    return __uint_as_float(static_cast<uint32_t>(w >> (32 * k)));
  } else {
    return __uint_as_float(static_cast<uint32_t>(w >> (16 * k)) << 16);
  }
}

// Where group i of windows has its upper row of x; y's groups lie one after the other.
template <class T>
__device__ __forceinline__ int64_t upper_row(unsigned i, unsigned width) {
  const unsigned groups = width / kVector<T>;  // of a row of windows
  return int64_t{i / groups} * 2 * width + i % groups * kVector<T>;
}

template <class T>
__global__ void max_pairs(bool relu, const T* x, T* y, uint8_t* index, unsigned count, unsigned width) {
  const unsigned i = blockIdx.x * kPoolThreads + threadIdx.x;
  if (i >= count) return;
  const T* from = x + upper_row<T>(i, width);
  float upper[kVector<T>], lower[kVector<T>], best[kWindows<T>];
  load_floats(upper, from);
  load_floats(lower, from + width);
  bytes_t<kWindows<T>> positions = 0;
#pragma unroll
  for (int k = 0; k < kWindows<T>; ++k) {
    int at = 0;
    best[k] = upper[2 * k];
    if (beats(upper[2 * k + 1], best[k])) best[k] = upper[2 * k + 1], at = 1;
    if (beats(lower[2 * k], best[k])) best[k] = lower[2 * k], at = 2;
    if (beats(lower[2 * k + 1], best[k])) best[k] = lower[2 * k + 1], at = 3;
    if (relu) apply_relu(best[k], at);
    positions = static_cast<bytes_t<kWindows<T>>>(positions | static_cast<unsigned>(at) << (8 * k));
  }
  store_bytes<8>(y + int64_t{i} * kWindows<T>, pack<T>(best));
  store_bytes<kWindows<T>>(index + int64_t{i} * kWindows<T>, positions);
}

template <class T>
__global__ void max_pairs_grad(const T* dy, const uint8_t* index, T* dx, unsigned count, unsigned width) {
  const unsigned i = blockIdx.x * kPoolThreads + threadIdx.x;
  if (i >= count) return;
  const uint64_t d = load_bytes<8>(dy + int64_t{i} * kWindows<T>);
  const unsigned positions = load_bytes<kWindows<T>>(index + int64_t{i} * kWindows<T>);
  float upper[kVector<T>], lower[kVector<T>];
#pragma unroll
  for (int k = 0; k < kWindows<T>; ++k) {
    const unsigned at = positions >> (8 * k) & 255;
    const float f = unpack<T>(d, k);
    upper[2 * k] = at == 0 ? f : 0, upper[2 * k + 1] = at == 1 ? f : 0;
    lower[2 * k] = at == 2 ? f : 0, lower[2 * k + 1] = at == 3 ? f : 0;
  }
  T* to = dx + upper_row<T>(i, width);
  store_floats(to, upper);
  store_floats(to + width, lower);
}

template <class T, bool kForward>
class Max final : public Kernel {
 public:
  Max(const Pool2dParams& p, const TensorSpec& x) : g_(planes_of(p, x)), relu_(p.relu()) {
    pairs_ = g_.v == 1 && g_.kernel_h == 2 && g_.kernel_w == 2 && g_.stride_h == 2 && g_.stride_w == 2 &&
             g_.pad_h == 0 && g_.pad_w == 0 && g_.dilation_h == 1 && g_.dilation_w == 1 && g_.h % 2 == 0 &&
             g_.w % kVector<T> == 0;
  }

  void run(const KernelArgs& args) override {
    const Shape& image = kForward ? args.in[0].shape() : args.out[0].shape();
    const int64_t planes = image[0] * image[1] / g_.v, x_plane = int64_t{g_.h} * g_.w * g_.v,
                  y_plane = int64_t{g_.p} * g_.q * g_.v;
    in_parts(planes, std::max(x_plane, y_plane), [&](int64_t first, int64_t some) {
      const auto part = [&](const View& v, int64_t plane) { return v.as<T>() + first * plane; };
      const auto bytes = [&](const View& v) { return v.as<uint8_t>() + first * y_plane; };
      if constexpr (kForward)
        forward(args.stream, some, part(args.in[0], x_plane), part(args.out[0], y_plane), bytes(args.out[1]));
      else
        backward(args.stream, some, part(args.in[0], y_plane), bytes(args.in[1]), part(args.out[0], x_plane));
    });
  }

 private:
  bool wide() const { return g_.v % kVector<T> == 0; }

  void forward(void* stream, int64_t planes, const T* x, T* y, uint8_t* index) const {
    const int64_t count = planes * g_.p * g_.q * g_.v;
    const auto start = [&](auto kernel, int width) {
      launch(kernel, blocks(count / width, kPoolThreads), kPoolThreads, 0, stream, g_, relu_, x, y, index,
             count / width);
    };
    if (pairs_)
      launch(max_pairs<T>, blocks(count / kWindows<T>, kPoolThreads), kPoolThreads, 0, stream, relu_, x, y,
             index, count / kWindows<T>, g_.w);
    else if (wide())
      start(max_windows<T, kVector<T>>, kVector<T>);
    else
      start(max_windows<T, 1>, 1);
  }

  void backward(void* stream, int64_t planes, const T* dy, const uint8_t* index, T* dx) const {
    const int64_t count = planes * g_.h * g_.w * g_.v;
    const auto start = [&](auto kernel, int width) {
      launch(kernel, blocks(count / width, kPoolThreads), kPoolThreads, 0, stream, g_, dy, index, dx,
             count / width);
    };
    if (pairs_)
      launch(max_pairs_grad<T>, blocks(count / (2 * kVector<T>), kPoolThreads), kPoolThreads, 0, stream, dy,
             index, dx, count / (2 * kVector<T>), g_.w);
    else if (wide())
      start(max_windows_grad<T, kVector<T>>, kVector<T>);
    else
      start(max_windows_grad<T, 1>, 1);
  }

  Planes g_;
  bool relu_, pairs_ = false;
};

template <class T, bool kForward>
void add_max(Registry& r, Device device) {
  r.add({.op = kForward ? "max_pool2d" : "max_pool2d_grad",
         .name = kForward ? "direct" : "gather",
         .device = device,
         .layout = LayoutClass::any,
         .dtype = dtype_of<T>,
         .bit_exact = {.threads = true, .shard = true},
         .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           if (!one_gpu_layout(q) || q.in[0].dtype != dtype_of<T> || q.out[0].dtype != dtype_of<T>)
             return nullptr;
           return std::make_unique<Max<T, kForward>>(q.params.as<Pool2dParams>(),
                                                     kForward ? q.in[0] : q.out[0]);
         }});
}

}  // namespace

void register_max_pool2d(Registry& r, Device device) {
  add_max<float, true>(r, device);
  add_max<float, false>(r, device);
  add_max<bf16, true>(r, device);
  add_max<bf16, false>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
