// SPDX-License-Identifier: Apache-2.0
// Group norm in one read: a block holds a group (channels last: a tile of whole groups) of one sample in
// registers. Declines groups too large for that.
#include "kernels/gpu/device_code.h"
#include "kernels/group_norm/numbers.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kForward = 8, kBackward = 4;  // vectors that a thread holds, backward: of x and of dy

// --- plain: a group's numbers lie side by side ---

struct Group {
  unsigned channels, groups, per_group, pixels;
};

template <class T, int kWidth, int kThreads, int kHeld>
__global__ void __launch_bounds__(kThreads)
    normalize_group(Group g, const T* x, const float* gamma, const float* beta, Follows follows, T* y,
                    float* stats, float eps) {
  const unsigned n = blockIdx.x / g.groups, group = blockIdx.x % g.groups, channel = group * g.per_group;
  const unsigned vectors = g.per_group * g.pixels / kWidth;
  const int64_t begin = int64_t{blockIdx.x} * g.per_group * g.pixels;
  const float count = static_cast<float>(g.per_group * g.pixels);
  Held<T, kWidth> held[kHeld];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const unsigned v = i * kThreads + threadIdx.x;
    if (v >= vectors) break;
    held[i].load(x + begin + v * kWidth);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sum += held[i][k];
  }
  const float center = block_sum<kThreads>(sum) / count;
  float sum1 = 0, sum2 = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (i * kThreads + threadIdx.x >= vectors) break;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const float d = held[i][k] - center;
      sum1 += d, sum2 = fmaf(d, d, sum2);
    }
  }
  block_sum<kThreads>(sum1, sum2);
  float mean, invstd;
  finish_moments(center, sum1, sum2, count, eps, mean, invstd);
  if (threadIdx.x == 0)
    stats[2 * n * g.groups + group] = mean, stats[(2 * n + 1) * g.groups + group] = invstd;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const unsigned v = i * kThreads + threadIdx.x;
    if (v >= vectors) break;
    const unsigned c = channel + v * kWidth / g.pixels;
    const float scale = gamma[c], shift = beta[c];
    float f[kWidth];
#pragma unroll
    for (int k = 0; k < kWidth; ++k) f[k] = follows(fmaf((held[i][k] - mean) * invstd, scale, shift));
    store_floats(y + begin + v * kWidth, f);
  }
}

// parts[n][c]: sums of dy and of dy * xhat.
template <class T, int kWidth, int kThreads, int kHeld>
__global__ void __launch_bounds__(kThreads)
    normalize_group_grad(Group g, const T* x, const T* dy, BackFromChannels back, const float* stats, T* dx,
                         float* parts) {
  __shared__ float sums[2][kThreads * kHeld];  // of each vector
  const unsigned n = blockIdx.x / g.groups, group = blockIdx.x % g.groups, channel = group * g.per_group;
  const unsigned of_channel = g.pixels / kWidth, vectors = g.per_group * of_channel;
  const int64_t begin = int64_t{blockIdx.x} * g.per_group * g.pixels;
  const float mean = stats[2 * n * g.groups + group], invstd = stats[(2 * n + 1) * g.groups + group];
  Held<T, kWidth> xs[kHeld], ds[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const unsigned v = i * kThreads + threadIdx.x;
    if (v >= vectors) break;
    xs[i].load(x + begin + v * kWidth);
    ds[i].load(dy + begin + v * kWidth);
    const BackFrom of = back.of(channel + v / of_channel);
    float sum = 0, sum_xhat = 0;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const float xhat = (xs[i][k] - mean) * invstd, dz = of(ds[i][k], xhat);
      sum += dz, sum_xhat = fmaf(dz, xhat, sum_xhat);
    }
    sums[0][v] = sum, sums[1][v] = sum_xhat;
  }
  __syncthreads();
  // A warp a channel, then the channels together.
  const unsigned lane = threadIdx.x % 32;
  float mean_dy = 0, mean_dy_xhat = 0;
  for (unsigned c = threadIdx.x / 32; c < g.per_group; c += kThreads / 32) {
    float sum = 0, sum_xhat = 0;
    for (unsigned v = lane; v < of_channel; v += 32)
      sum += sums[0][c * of_channel + v], sum_xhat += sums[1][c * of_channel + v];
    sum = warp_sum(sum), sum_xhat = warp_sum(sum_xhat);
    if (lane != 0) continue;
    float* part = parts + 2 * (int64_t{n} * g.channels + channel + c);
    part[0] = sum, part[1] = sum_xhat;
    mean_dy = fmaf(back.gamma[channel + c], sum, mean_dy),
    mean_dy_xhat = fmaf(back.gamma[channel + c], sum_xhat, mean_dy_xhat);
  }
  block_sum<kThreads>(mean_dy, mean_dy_xhat);
  const float count = static_cast<float>(g.per_group * g.pixels);
  mean_dy /= count, mean_dy_xhat /= count;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const unsigned v = i * kThreads + threadIdx.x;
    if (v >= vectors) break;
    const BackFrom of = back.of(channel + v / of_channel);
    float f[kWidth];
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const float xhat = (xs[i][k] - mean) * invstd;
      f[k] = invstd * (of.gamma * of(ds[i][k], xhat) - mean_dy - xhat * mean_dy_xhat);
    }
    store_floats(dx + begin + v * kWidth, f);
  }
}

// --- channels last: a block takes all pixels of as many channels as kColumns ---

// From sums of each column, the same in all of a column's threads, to sums of each one's group.
template <int kWidth>
__device__ __forceinline__ void group_sum(float (&a)[kWidth], float (&b)[kWidth], unsigned per_group) {
  constexpr unsigned kCount = kColumns<kWidth>;
  __shared__ float column[2][kCount], group[2][kCount];
  constexpr unsigned kWide = kAcross<kWidth>;
  const unsigned own = threadIdx.x % kWide;
  if (threadIdx.x < kWide)
#pragma unroll
    for (int k = 0; k < kWidth; ++k) column[0][k * kWide + own] = a[k], column[1][k * kWide + own] = b[k];
  __syncthreads();
  const unsigned which = threadIdx.x / kCount, first = threadIdx.x % kCount * per_group;
  if (which < 2 && first < kCount) {
    float sum = 0;
    for (unsigned i = 0; i < per_group; ++i) sum += column[which][column_slot<kWidth>(first + i)];
    group[which][first / per_group] = sum;
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kWidth; ++k)
    a[k] = group[0][(own * kWidth + k) / per_group], b[k] = group[1][(own * kWidth + k) / per_group];
}

template <class T, int kWidth, int kThreads, int kHeld>
__global__ void __launch_bounds__(kThreads)
    normalize_columns(Columns g, unsigned per_group, const T* x, const float* gamma, const float* beta,
                      Follows follows, T* y, float* stats, float eps) {
  const ColumnsPiece<kWidth, kThreads, kHeld> p(g, 1);
  const float count = static_cast<float>(g.rows * per_group);
  Held<T, kWidth> held[kHeld];
  float center[kWidth] = {}, sum1[kWidth] = {}, sum2[kWidth] = {};
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (i >= p.held) break;
    held[i].load(x + p.at(g, i));
#pragma unroll
    for (int k = 0; k < kWidth; ++k) center[k] += held[i][k];
  }
  column_sum<kWidth, kThreads>(center, sum1);
  group_sum<kWidth>(center, sum1, per_group);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) center[k] /= count, sum1[k] = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (i >= p.held) break;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const float d = held[i][k] - center[k];
      sum1[k] += d, sum2[k] = fmaf(d, d, sum2[k]);
    }
  }
  column_sum<kWidth, kThreads>(sum1, sum2);
  group_sum<kWidth>(sum1, sum2, per_group);
  if (p.held == 0) return;
  const unsigned groups = g.columns / per_group;
  float mean[kWidth], invstd[kWidth];
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    finish_moments(center[k], sum1[k], sum2[k], count, eps, mean[k], invstd[k]);
    const unsigned c = p.column + k, group = c / per_group;
    if (p.row == 0 && c % per_group == 0)
      stats[2 * p.matrix * groups + group] = mean[k], stats[(2 * p.matrix + 1) * groups + group] = invstd[k];
  }
  float scale[kWidth], shift[kWidth];
  load_row(scale, gamma + p.column), load_row(shift, beta + p.column);
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (i >= p.held) break;
    float f[kWidth];
#pragma unroll
    for (int k = 0; k < kWidth; ++k)
      f[k] = follows(fmaf((held[i][k] - mean[k]) * invstd[k], scale[k], shift[k]));
    store_floats(y + p.at(g, i), f);
  }
}

template <class T, int kWidth, int kThreads, int kHeld>
__global__ void __launch_bounds__(kThreads)
    normalize_columns_grad(Columns g, const T* x, const T* dy, BackFromChannels back, Statistics stats, T* dx,
                           float* parts) {
  const ColumnsPiece<kWidth, kThreads, kHeld> p(g, 1);
  Held<T, kWidth> xs[kHeld], ds[kHeld];
  float mean[kWidth] = {}, invstd[kWidth] = {}, sum[kWidth] = {}, sum_xhat[kWidth] = {};
  BackFrom of[kWidth] = {};
  if (p.held > 0) stats.load(mean, invstd, p.matrix, p.column), back.load(of, p.column);
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (i >= p.held) break;
    xs[i].load(x + p.at(g, i));
    ds[i].load(dy + p.at(g, i));
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const float xhat = (xs[i][k] - mean[k]) * invstd[k], dz = of[k](ds[i][k], xhat);
      sum[k] += dz, sum_xhat[k] = fmaf(dz, xhat, sum_xhat[k]);
    }
  }
  column_sum<kWidth, kThreads>(sum, sum_xhat);
  const float share = 1.0f / static_cast<float>(g.rows * stats.per_group);
  if (p.writes(g)) store_pairs(parts + p.part(g, 1), sum, sum_xhat);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) sum[k] *= of[k].gamma, sum_xhat[k] *= of[k].gamma;
  group_sum<kWidth>(sum, sum_xhat, stats.per_group);
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (i >= p.held) break;
    float f[kWidth];
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const float xhat = (xs[i][k] - mean[k]) * invstd[k];
      f[k] =
          invstd[k] * (of[k].gamma * of[k](ds[i][k], xhat) - sum[k] * share - xhat * (sum_xhat[k] * share));
    }
    store_floats(dx + p.at(g, i), f);
  }
}

// --- host ---

// Vectors that each of 512 threads holds: twice as many as usual, where that spills no registers.
constexpr int most_held(bool columns, int width, int held) {
  const bool tight = columns ? width > 4 : width == 1 && held == kBackward;
  return tight ? held : 2 * held;
}

// f(threads, vectors that each holds), as constants: the fewest that hold a plain group's vectors, or the
// rows of columns.
template <bool kInColumns, int kHeld, int kWidth, class F>
void with_threads(int64_t rows_or_vectors, F f) {
  const auto fit = [&](int threads) {
    return rows_or_vectors <=
           (kInColumns ? int64_t{piece_of_rows(kWidth, threads, kHeld)} : int64_t{threads} * kHeld);
  };
  if constexpr (!kInColumns)
    if (fit(32)) return f(std::integral_constant<int, 32>(), std::integral_constant<int, kHeld>());
  if (fit(256))
    f(std::integral_constant<int, 256>(), std::integral_constant<int, kHeld>());
  else
    f(std::integral_constant<int, 512>(),
      std::integral_constant<int, most_held(kInColumns, kWidth, kHeld)>());
}

template <class T>
bool fits(const GroupGeometry<T>& g, int held) {
  const int most = most_held(g.columns, g.width(), held);
  if (g.columns) return g.tile() % g.per_group() == 0 && g.hw <= piece_of_rows(g.width(), 512, most);
  return g.group_numbers() / g.width() <= 512 * most;
}

template <class T>
class Resident : public Kernel {
 public:
  Resident(const KernelRequest& q) : g_(q.params.as<GroupNormParams>(), q.in[0]) {}

 protected:
  Group group() const {
    return {unsigned(g_.c), unsigned(g_.groups), unsigned(g_.per_group()), unsigned(g_.hw)};
  }
  unsigned grid() const {
    return static_cast<unsigned>(g_.n * (g_.columns ? blocks(g_.c, g_.tile()) : g_.groups));
  }
  GroupGeometry<T> g_;
};

template <class T>
class ResidentForward final : public Resident<T> {
 public:
  using Resident<T>::Resident;
  void run(const KernelArgs& args) override {
    const GroupGeometry<T>& g = this->g_;
    const T* x = args.in[0].as<T>();
    T* y = args.out[0].as<T>();
    const float *gamma = args.in[1].as<float>(), *beta = args.in[2].as<float>();
    float* stats = args.out[1].as<float>();
    with_width<T>(g.wide, [&](auto width) {
      if (g.columns)
        with_threads<true, kForward, width>(g.hw, [&](auto threads, auto held) {
          launch(normalize_columns<T, width, threads, held>, this->grid(), threads(), 0, args.stream,
                 g.matrices(), g.per_group(), x, gamma, beta, Follows{g.silu}, y, stats, g.eps);
        });
      else
        with_threads<false, kForward, width>(g.group_numbers() / width, [&](auto threads, auto held) {
          launch(normalize_group<T, width, threads, held>, this->grid(), threads(), 0, args.stream,
                 this->group(), x, gamma, beta, Follows{g.silu}, y, stats, g.eps);
        });
    });
  }
};

template <class T>
class ResidentBackward final : public Resident<T> {
 public:
  using Resident<T>::Resident;
  int64_t workspace_bytes() const override {
    return this->g_.n * this->g_.c * 2 * static_cast<int64_t>(sizeof(float));
  }
  void run(const KernelArgs& args) override {
    const GroupGeometry<T>& g = this->g_;
    const T *x = args.in[0].as<T>(), *dy = args.in[1].as<T>();
    T* dx = args.out[0].as<T>();
    const BackFromChannels back{args.in[2].as<float>(), args.in[3].as<float>(), g.silu};
    const float* stats = args.in[4].as<float>();
    auto* parts = static_cast<float*>(args.workspace);
    with_width<T>(g.wide, [&](auto width) {
      if (g.columns)
        with_threads<true, kBackward, width>(g.hw, [&](auto threads, auto held) {
          launch(normalize_columns_grad<T, width, threads, held>, this->grid(), threads(), 0, args.stream,
                 g.matrices(), x, dy, back, g.statistics(stats), dx, parts);
        });
      else
        with_threads<false, kBackward, width>(g.group_numbers() / width, [&](auto threads, auto held) {
          launch(normalize_group_grad<T, width, threads, held>, this->grid(), threads(), 0, args.stream,
                 this->group(), x, dy, back, stats, dx, parts);
        });
    });
    add_affine_grads(args, parts, g.n, g.c);
  }
};

template <class T>
void add_resident(Registry& r, Device device) {
  const auto add = [&](const char* op, int held, bool shard, size_t in, auto make) {
    r.add({.op = op,
           .name = "resident",
           .device = device,
           .layout = LayoutClass::any,
           .dtype = dtype_of<T>,
           .bit_exact = {.threads = true, .shard = shard},
           .make = [=](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             if (!norm_types<T>(q, in, 1) || !one_gpu_layout(q)) return nullptr;
             return fits(GroupGeometry<T>(q.params.as<GroupNormParams>(), q.in[0]), held) ? make(q) : nullptr;
           }});
  };
  add("group_norm", kForward, true, 1,
      [](const KernelRequest& q) { return std::make_unique<ResidentForward<T>>(q); });
  add("group_norm_grad", kBackward, false, 2,
      [](const KernelRequest& q) { return std::make_unique<ResidentBackward<T>>(q); });
}

}  // namespace

void register_group_norm_resident(Registry& r, Device device) {
  add_resident<float>(r, device);
  add_resident<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
