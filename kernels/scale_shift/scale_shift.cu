// SPDX-License-Identifier: Apache-2.0
// Scale and shift on a GPU. Forward a thread takes one number, or 16 bytes of them; backward a warp has a
// channel of a sample (plain), a block some channels of a sample (channels last), whose sums it adds up while
// it writes dx.
#include "kernels/gpu/channel_sums.h"
#include "kernels/gpu/device_code.h"
#include "kernels/scale_shift/kernels.h"
#include "kernels/scale_shift/scale_shift.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kThreads = 256;

// Coefficients of kWidth numbers, from p on: of one channel each (channels last), or all of that one.
template <int kWidth, class T>
__device__ __forceinline__ void load_coefficients(float (&f)[kWidth], const T* p, bool columns) {
  if (columns) {
    load_floats(f, p);
    return;
  }
  const float all = float(*p);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) f[k] = all;
}

template <class T, int kWidth>
__global__ void scale_and_shift(Numbers g, bool columns, const T* x, const T* scale, const T* shift, T* y,
                                unsigned vectors) {
  const unsigned v = blockIdx.x * kThreads + threadIdx.x;
  if (v >= vectors) return;
  unsigned n = 0, c = 0;
  g.find<kWidth>(v, n, c);
  if (columns) c = v * kWidth % g.channels;
  const unsigned coefficient = n * g.channels + c;
  float f[kWidth], by[kWidth] = {}, plus[kWidth];
  load_floats(f, x + int64_t{v} * kWidth);
  load_coefficients(plus, shift + coefficient, columns);
  if (scale) load_coefficients(by, scale + coefficient, columns);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) f[k] = fmaf(f[k], 1 + by[k], plus[k]);
  store_floats(y + int64_t{v} * kWidth, f);
}

// x, scale, dx and dscale are null where there is no scale.
template <class T>
struct Gradients {
  const T *dy, *x, *scale;
  T *dshift, *dx, *dscale;
};

// kWidth numbers at `at`, whose coefficients are `factor` = 1 + scale.
template <class T, int kWidth>
__device__ __forceinline__ void add_numbers(const Gradients<T>& a, int64_t at, const float (&factor)[kWidth],
                                            float (&sum)[kWidth], float (&product)[kWidth]) {
  float d[kWidth], x[kWidth];
  load_floats(d, a.dy + at);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) sum[k] += d[k];
  if (!a.x) return;
  load_floats(x, a.x + at);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) product[k] = fmaf(d[k], x[k], product[k]), d[k] *= factor[k];
  store_floats(a.dx + at, d);
}

// Plain: a warp has channel `set` of all samples'.
template <class T, int kWidth>
__global__ void gradient_of_runs(Gradients<T> a, unsigned sets, unsigned pixels) {
  const unsigned set = blockIdx.x * (kThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (set >= sets) return;
  float factor[kWidth], sum[kWidth] = {}, product[kWidth] = {};
#pragma unroll
  for (int k = 0; k < kWidth; ++k) factor[k] = a.scale ? 1 + float(a.scale[set]) : 1;
  for (unsigned i = lane * kWidth; i < pixels; i += 32 * kWidth)
    add_numbers(a, int64_t{set} * pixels + i, factor, sum, product);
#pragma unroll
  for (int k = 1; k < kWidth; ++k) sum[0] += sum[k], product[0] += product[k];
  const float total = warp_sum(sum[0]), total_product = warp_sum(product[0]);
  if (lane != 0) return;
  a.dshift[set] = T(total);
  if (a.x) a.dscale[set] = T(total_product);
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) gradient_of_columns(Gradients<T> a, Columns g) {
  constexpr unsigned kDown = kThreads / kAcross<kWidth>;
  const unsigned tiles = (g.columns + kColumns<kWidth> - 1) / kColumns<kWidth>;
  const unsigned n = blockIdx.x / tiles, down = threadIdx.x / kAcross<kWidth>;
  const unsigned c = blockIdx.x % tiles * kColumns<kWidth> + threadIdx.x % kAcross<kWidth> * kWidth;
  const int64_t coefficient = int64_t{n} * g.columns + c;
  float factor[kWidth] = {}, sum[kWidth] = {}, product[kWidth] = {};
  if (c < g.columns) {
    if (a.scale) load_floats(factor, a.scale + coefficient);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) factor[k] += 1;
    for (unsigned row = down; row < g.rows; row += kDown)
      add_numbers(a, (int64_t{n} * g.rows + row) * g.columns + c, factor, sum, product);
  }
  column_sum<kWidth, kThreads>(sum, product);
  if (down != 0 || c >= g.columns) return;
  store_floats(a.dshift + coefficient, sum);
  if (a.x) store_floats(a.dscale + coefficient, product);
}

template <class T>
bool is_wide(const TensorSpec& x) {
  return (x.layout == Layout::nhwc ? x.shape[1] : x.shape.elements_from(2)) % kVector<T> == 0;
}

template <class T>
void forward(const NoParams&, const KernelArgs& args) {
  const View& x = args.in[0];
  const int64_t channels = x.dim(1), pixels = x.shape().elements_from(2);
  const Numbers numbers{unsigned(channels), unsigned(pixels)};
  const bool columns = x.spec.layout == Layout::nhwc;
  const T* scale = scale_shift::has_scale(args) ? args.in[1].as<const T>() : nullptr;
  in_parts(x.dim(0), channels * pixels, [&](int64_t first, int64_t samples) {
    with_width<T>(is_wide<T>(x.spec), [&](auto width) {
      const int64_t from = first * channels * pixels, vectors = samples * channels * pixels / width;
      launch(scale_and_shift<T, width>, blocks(vectors, kThreads), kThreads, 0, args.stream, numbers, columns,
             x.as<const T>() + from, scale ? scale + first * channels : nullptr,
             args.in.back().as<const T>() + first * channels, args.out[0].as<T>() + from, vectors);
    });
  });
}

template <class T>
void backward(const NoParams&, const KernelArgs& args) {
  const View& dy = args.in[0];
  const int64_t samples = dy.dim(0), channels = dy.dim(1), pixels = dy.shape().elements_from(2);
  Gradients<T> a{dy.as<const T>(), nullptr, nullptr, args.out[0].as<T>(), nullptr, nullptr};
  if (scale_shift::has_scale(args)) {
    a.x = args.in[1].as<const T>(), a.scale = args.in[2].as<const T>();
    a.dx = args.out[1].as<T>(), a.dscale = args.out[2].as<T>();
  }
  with_width<T>(is_wide<T>(dy.spec), [&](auto width) {
    if (dy.spec.layout == Layout::nhwc)
      launch(gradient_of_columns<T, width>, samples * blocks(channels, kColumns<width>), kThreads, 0,
             args.stream, a, Columns{unsigned(samples), unsigned(pixels), unsigned(channels)});
    else
      launch(gradient_of_runs<T, width>, blocks(samples * channels, kThreads / 32), kThreads, 0, args.stream,
             a, samples * channels, pixels);
  });
}

template <class T>
void add_scale_shift(Registry& r, Device device) {
  const auto add = [&](const char* op, auto f) {
    r.add({.op = op,
           .name = "direct",
           .device = device,
           .layout = LayoutClass::any,
           .dtype = dtype_of<T>,
           .bit_exact = {.threads = true, .shard = true},
           .make = [make = stateless<NoParams>(f)](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             return of_one_type<T>(q) && one_gpu_layout(q) ? make(q) : nullptr;
           }});
  };
  add("scale_shift", forward<T>);
  add("scale_shift_grad", backward<T>);
}

}  // namespace

void register_scale_shift(Registry& r, Device device) {
  add_scale_shift<float>(r, device);
  add_scale_shift<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
