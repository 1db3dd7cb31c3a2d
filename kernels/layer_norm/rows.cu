// SPDX-License-Identifier: Apache-2.0
// Layer norm on a GPU: a warp has a row, which it reads from memory once and then from the L1 cache. dgamma
// and dbeta are summed by blocks of some columns over pieces of rows, whose sums are then added in order.
#include "kernels/gpu/channel_sums.h"
#include "kernels/gpu/device_code.h"
#include "kernels/layer_norm/geometry.h"
#include "kernels/layer_norm/layer_norm.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * 32;
constexpr int kSummedRows = 4;  // of a thread, all on their way at once

// f(column, numbers) over a row's numbers, kWidth of them a lane.
template <int kWidth, class T, class F>
__device__ __forceinline__ void for_row(const T* x, int c, F f) {
  for (int i = static_cast<int>(threadIdx.x) % 32 * kWidth; i < c; i += 32 * kWidth) {
    float v[kWidth];
    load_floats(v, x + i);
    f(i, v);
  }
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    normalize_rows(const T* x, const float* gamma, const float* beta, T* y, float* stats, int64_t rows, int c,
                   float eps) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= rows) return;
  const T* from = x + row * c;
  float sum = 0;
  for_row<kWidth>(from, c, [&](int, const float(&v)[kWidth]) {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sum += v[k];
  });
  const float mean = warp_sum(sum) / static_cast<float>(c);
  float off = 0, squares = 0;  // of the deviations from a mean that is rounded
  for_row<kWidth>(from, c, [&](int, const float(&v)[kWidth]) {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const float d = v[k] - mean;
      off += d, squares = fmaf(d, d, squares);
    }
  });
  off = warp_sum(off), squares = warp_sum(squares);
  const float count = static_cast<float>(c);
  const float invstd = 1.0f / sqrtf((squares - off * (off / count)) / count + eps);
  if (threadIdx.x % 32 == 0) store_vector(stats + 2 * row, Vector<float, 2>{mean, invstd});
  for_row<kWidth>(from, c, [&](int i, const float(&v)[kWidth]) {
    float scale[kWidth], shift[kWidth], to[kWidth];
    load_row(scale, gamma + i), load_row(shift, beta + i);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) to[k] = fmaf((v[k] - mean) * invstd, scale[k], shift[k]);
    store_floats(y + row * c + i, to);
  });
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    normalize_rows_grad(const T* x, const T* dy, const float* gamma, const float* stats, T* dx, int64_t rows,
                        int c) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= rows) return;
  const Vector<float, 2> of = load_vector<2>(stats + 2 * row);
  const float mean = of[0], invstd = of[1];
  // f(column, gamma * dy, xhat)
  const auto numbers = [&](auto f) {
    for_row<kWidth>(x + row * c, c, [&](int i, const float(&v)[kWidth]) {
      float d[kWidth], scale[kWidth], xhat[kWidth];
      load_floats(d, dy + row * c + i), load_row(scale, gamma + i);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) d[k] *= scale[k], xhat[k] = (v[k] - mean) * invstd;
      f(i, d, xhat);
    });
  };
  float sum = 0, product = 0;
  numbers([&](int, const float(&d)[kWidth], const float(&xhat)[kWidth]) {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sum += d[k], product = fmaf(d[k], xhat[k], product);
  });
  const float shift = warp_sum(sum) / static_cast<float>(c);
  const float slope = warp_sum(product) / static_cast<float>(c);
  numbers([&](int i, const float(&d)[kWidth], const float(&xhat)[kWidth]) {
    float to[kWidth];
#pragma unroll
    for (int k = 0; k < kWidth; ++k) to[k] = (d[k] - fmaf(xhat[k], slope, shift)) * invstd;
    store_floats(dx + row * c + i, to);
  });
}

// parts[piece][C][2]: a piece's sums of dy and of dy * xhat.
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    affine_sums(Columns g, const T* x, const T* dy, const float* stats, float* parts, unsigned pieces) {
  const ColumnsPiece<kWidth, kThreads, kSummedRows> p(g, pieces);
  Held<T, kWidth> xs[kSummedRows], ds[kSummedRows];
  Vector<float, 2> of[kSummedRows];
  float sum[kWidth] = {}, product[kWidth] = {};
#pragma unroll
  for (int i = 0; i < kSummedRows; ++i)
    if (i < p.held) {
      xs[i].load(x + p.at(g, i)), ds[i].load(dy + p.at(g, i));
      of[i] = load_vector<2>(stats + 2 * int64_t{p.row + i * p.kDown});
    }
#pragma unroll
  for (int i = 0; i < kSummedRows; ++i)
    if (i < p.held)
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const float d = ds[i][k];
        sum[k] += d, product[k] = fmaf(d, (xs[i][k] - of[i][0]) * of[i][1], product[k]);
      }
  column_sum<kWidth, kThreads>(sum, product);
  if (p.writes(g)) store_pairs(parts + p.part(g, pieces), sum, product);
}

template <class T>
void run_forward(const LayerNormParams& p, const KernelArgs& args) {
  const layer_norm::Geometry g(args.in[0].spec);
  with_width<T>(g.c % kVector<T> == 0, [&](auto width) {
    launch(normalize_rows<T, width>, blocks(g.all_rows(), kWarps), kThreads, 0, args.stream,
           args.in[0].as<const T>(), args.in[1].as<const float>(), args.in[2].as<const float>(),
           args.out[0].as<T>(), args.out[1].as<float>(), g.all_rows(), g.c, p.eps);
  });
}

template <class T>
class Backward final : public Kernel {
 public:
  explicit Backward(const KernelRequest& r)
      : g_(r.in[0]),
        wide_(g_.c % kVector<T> == 0),
        pieces_(blocks(g_.all_rows(), piece_of_rows(wide_ ? kVector<T> : 1, kThreads, kSummedRows))) {}
  int64_t workspace_bytes() const override { return pieces_ * g_.c * 2 * size_of(DType::f32); }

  // dx last: it may be dy's buffer.
  void run(const KernelArgs& args) override {
    auto* parts = static_cast<float*>(args.workspace);
    const auto *x = args.in[0].as<const T>(), *dy = args.in[1].as<const T>();
    const auto* stats = args.in[3].as<const float>();
    with_width<T>(wide_, [&](auto width) {
      const Columns columns{1, unsigned(g_.all_rows()), unsigned(g_.c)};
      launch(affine_sums<T, width>, static_cast<unsigned>(pieces_) * blocks(g_.c, kColumns<width>), kThreads,
             0, args.stream, columns, x, dy, stats, parts, pieces_);
    });
    sum_parts(parts, args.out[2].as<float>(), args.out[1].as<float>(), pieces_, g_.c, args.stream);
    with_width<T>(wide_, [&](auto width) {
      launch(normalize_rows_grad<T, width>, blocks(g_.all_rows(), kWarps), kThreads, 0, args.stream, x, dy,
             args.in[2].as<const float>(), stats, args.out[0].as<T>(), g_.all_rows(), g_.c);
    });
  }

 private:
  layer_norm::Geometry g_;
  bool wide_;
  int64_t pieces_;
};

template <class T>
void add_layer_norm(Registry& r, Device device) {
  const auto add = [&](const char* op, size_t in, bool shard, auto make) {
    r.add({.op = op,
           .name = "rows",
           .device = device,
           .layout = LayoutClass::plain,
           .dtype = dtype_of<T>,
           .bit_exact = {.threads = true, .shard = shard},
           .make = [in, make](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             return norm_types<T>(q, in, 1) ? make(q) : nullptr;
           }});
  };
  add("layer_norm", 1, true, stateless<LayerNormParams>(run_forward<T>));
  add("layer_norm_grad", 2, false, [](const KernelRequest& q) { return std::make_unique<Backward<T>>(q); });
}

}  // namespace

void register_layer_norm(Registry& r, Device device) {
  add_layer_norm<float>(r, device);
  add_layer_norm<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
