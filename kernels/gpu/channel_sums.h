// SPDX-License-Identifier: Apache-2.0
// Sums over the numbers of each channel (or group), for norms.
//
// A block holds a piece of the numbers in registers, so that a mean and the deviations from it take one read
// of memory. What a piece gives lies in `parts`, which others add up in the order of the pieces, in double.
// Two shapes of pieces:
//   runs     plain tensors: a set of numbers is `runs` stretches of `length`, e.g. a channel over all samples
//   columns  channels last: matrices [rows, columns], a column being a channel
#pragma once

#include "kernels/gpu/partial_sums.cuh"
#include "kernels/gpu/reduce.h"
#include "kernels/gpu/vectors.h"

namespace lockstep::LOCKSTEP_DEVICE {

// Mean and 1/sqrt(variance + eps), of sample n and channel c.
struct Statistics {
  const float *mean, *invstd;
  unsigned stride, per_group;  // batch norm: 0, 1
  __device__ __forceinline__ unsigned index(unsigned n, unsigned c) const {
    return n * stride + (per_group == 1 ? c : c / per_group);
  }
  // Of kWidth channels from c on, a group's only once.
  template <int kWidth>
  __device__ __forceinline__ void load(float (&means)[kWidth], float (&invstds)[kWidth], unsigned n,
                                       unsigned c) const {
    if (per_group == 1) {
      load_row(means, mean + n * stride + c), load_row(invstds, invstd + n * stride + c);
      return;
    }
    unsigned i = index(n, c), left = per_group - c % per_group;  // of the group
#pragma unroll
    for (int k = 0; k < kWidth; ++k, --left) {
      if (k > 0 && left > 0) {
        means[k] = means[k - 1], invstds[k] = invstds[k - 1];
        continue;
      }
      if (k > 0) ++i, left = per_group;
      means[k] = mean[i], invstds[k] = invstd[i];
    }
  }
};

// How a gradient gets back to a norm's output: as it is, where nothing follows the norm.
struct Straight {
  struct Channel {
    __device__ __forceinline__ float operator()(float dy, float /*xhat*/) const { return dy; }
  };
  __device__ __forceinline__ Channel of(unsigned /*channel*/) const { return {}; }
  template <int kWidth>
  __device__ __forceinline__ void load(Channel (&)[kWidth], unsigned /*channel*/) const {}
};

// What is known of a piece of numbers of which `sum1` and `sum2` are the sums of deviations from `center`,
// and of their squares: mean and sum of squared deviations from it. A center beside the mean by its rounding
// does no harm.
__device__ __forceinline__ void store_moments(double* part, float center, float sum1, float sum2,
                                              unsigned count) {
  const double off = double{sum1} / count;
  store_vector(part, Vector<double, 2>{double{center} + off, double{sum2} - off * double{sum1}});
}

// --- runs ---

struct Runs {
  int64_t stride;               // from run to run
  unsigned runs, length, sets;  // set s has numbers [s * length, (s + 1) * length) of each run
  __host__ __device__ unsigned numbers() const { return runs * length; }
  // Where vector v of a set lies.
  template <int kWidth>
  __device__ __forceinline__ int64_t at(unsigned set, unsigned v) const {
    const int64_t begin = int64_t{set} * length;
    if (runs == 1) return begin + int64_t{v} * kWidth;
    const unsigned of_run = length / kWidth;
    return begin + v / of_run * stride + v % of_run * kWidth;
  }
};
constexpr unsigned piece_of_run(int width, int threads, int held) {
  return static_cast<unsigned>(width * threads * held);
}

// parts[piece][set]: mean, M2.
template <class T, int kWidth, int kThreads, int kHeld>
__global__ void __launch_bounds__(kThreads) run_moments(Runs g, const T* x, double* parts) {
  const unsigned set = blockIdx.x % g.sets, piece = blockIdx.x / g.sets;
  const unsigned first = piece * kThreads * kHeld,
                 vectors = min(g.numbers() / kWidth - first, unsigned{kThreads * kHeld});
  Held<T, kWidth> held[kHeld];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const unsigned v = i * kThreads + threadIdx.x;
    if (v >= vectors) break;
    held[i].load(x + g.at<kWidth>(set, first + v));
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sum += held[i][k];
  }
  const unsigned count = vectors * kWidth;
  const float center = block_sum<kThreads>(sum) / static_cast<float>(count);
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
  if (threadIdx.x == 0) store_moments(parts + 2 * int64_t{blockIdx.x}, center, sum1, sum2, count);
}

// parts[piece][set]: sums of dy and of dy * xhat. Set s is channel s % channels of sample s / channels.
template <class T, int kWidth, int kThreads, int kHeld, class Back>
__global__ void __launch_bounds__(kThreads) run_grad_sums(Runs g, const T* x, const T* dy, Statistics stats,
                                                          Back back, unsigned channels, float* parts) {
  const unsigned set = blockIdx.x % g.sets, piece = blockIdx.x / g.sets;
  const unsigned first = piece * kThreads * kHeld,
                 vectors = min(g.numbers() / kWidth - first, unsigned{kThreads * kHeld});
  const unsigned s = stats.index(set / channels, set % channels);
  const float mean = stats.mean[s], invstd = stats.invstd[s];
  const auto channel = back.of(set % channels);
  float sum = 0, sum_xhat = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const unsigned v = i * kThreads + threadIdx.x;
    if (v >= vectors) break;
    const int64_t at = g.at<kWidth>(set, first + v);
    float a[kWidth], b[kWidth];
    load_floats(a, x + at);
    load_floats(b, dy + at);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const float xhat = (a[k] - mean) * invstd, d = channel(b[k], xhat);
      sum += d, sum_xhat = fmaf(d, xhat, sum_xhat);
    }
  }
  block_sum<kThreads>(sum, sum_xhat);
  if (threadIdx.x == 0) parts[2 * int64_t{blockIdx.x}] = sum, parts[2 * int64_t{blockIdx.x} + 1] = sum_xhat;
}

// --- columns ---

struct Columns {
  unsigned matrices, rows, columns;
};
template <int kWidth>
constexpr int kAcross = kWidth == 1 ? 32 : 8;  // threads side by side
template <int kWidth>
constexpr int kColumns = kAcross<kWidth>* kWidth;  // of a block
constexpr unsigned piece_of_rows(int width, int threads, int held) {
  return static_cast<unsigned>(threads / (width == 1 ? 32 : 8) * held);
}

// Where a thread of a block works.
template <int kWidth, int kThreads, int kHeld>
struct ColumnsPiece {
  unsigned matrix, piece, column, row;  // row: the thread's first, of the matrix
  unsigned rows;                        // of the piece
  int held;                             // rows of this thread; none where it stands past the columns
  static constexpr unsigned kDown = kThreads / kAcross<kWidth>;

  __device__ __forceinline__ ColumnsPiece(const Columns& g, unsigned pieces) {
    const unsigned tiles = (g.columns + kColumns<kWidth> - 1) / kColumns<kWidth>;
    const unsigned y = threadIdx.x / kAcross<kWidth>;
    column = blockIdx.x % tiles * kColumns<kWidth> + threadIdx.x % kAcross<kWidth> * kWidth;
    piece = blockIdx.x / tiles % pieces;
    matrix = blockIdx.x / tiles / pieces;
    row = piece * kDown * kHeld + y;
    rows = min(g.rows - piece * kDown * kHeld, kDown * kHeld);
    held = column < g.columns && y < rows ? static_cast<int>((rows - y + kDown - 1) / kDown) : 0;
  }
  __device__ __forceinline__ int64_t at(const Columns& g, int i) const {
    return (int64_t{matrix} * g.rows + row + static_cast<unsigned>(i) * kDown) * g.columns + column;
  }
  // Of this thread's first column, in parts[matrix][piece][column][2].
  __device__ __forceinline__ int64_t part(const Columns& g, unsigned pieces) const {
    return 2 * ((int64_t{matrix} * pieces + piece) * g.columns + column);
  }
  __device__ __forceinline__ bool writes(const Columns& g) const {
    return threadIdx.x < kAcross<kWidth> && column < g.columns;
  }
};

// Where column c of a block's lies in shared memory, so that threads side by side write and read there side
// by side, each its column k. Column of thread x: column_slot(x * kWidth + k) = k * kAcross + x.
template <int kWidth>
__device__ __forceinline__ unsigned column_slot(unsigned c) {
  return c % kWidth * kAcross<kWidth> + c / kWidth;
}

// Every thread gets the sums of its columns over the block's rows.
template <int kWidth, int kThreads>
__device__ __forceinline__ void column_sum(float (&a)[kWidth], float (&b)[kWidth]) {
  constexpr int kWarps = kThreads / 32, kCount = kColumns<kWidth>, kWide = kAcross<kWidth>;
  static_assert(kThreads >= 2 * kCount);
  __shared__ float partial[kWarps][2][kCount], total[2][kCount];
#pragma unroll
  for (int d = kWide; d < 32; d *= 2)
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      a[k] += __shfl_xor_sync(kAllLanes, a[k], d);
      b[k] += __shfl_xor_sync(kAllLanes, b[k], d);
    }
  const unsigned lane = threadIdx.x % 32, own = threadIdx.x % kWide;
  if (lane < kWide)
#pragma unroll
    for (int k = 0; k < kWidth; ++k)
      partial[threadIdx.x / 32][0][k * kWide + own] = a[k],
                                               partial[threadIdx.x / 32][1][k * kWide + own] = b[k];
  __syncthreads();
  if (threadIdx.x < 2 * kCount) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += partial[w][threadIdx.x / kCount][threadIdx.x % kCount];
    total[threadIdx.x / kCount][threadIdx.x % kCount] = sum;
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kWidth; ++k) a[k] = total[0][k * kWide + own], b[k] = total[1][k * kWide + own];
}

// a[0] b[0] a[1] b[1] ... from p on, 16 bytes at once where there are as many.
template <int kWidth>
__device__ __forceinline__ void store_pairs(float* p, const float (&a)[kWidth], const float (&b)[kWidth]) {
  if constexpr (kWidth == 1) {
    store_vector(p, Vector<float, 2>{a[0], b[0]});
  } else {
#pragma unroll
    for (int k = 0; k < kWidth; k += 2) store16(p + 2 * k, Vector<float>{a[k], b[k], a[k + 1], b[k + 1]});
  }
}

// parts[matrix][piece][column]: mean, M2.
template <class T, int kWidth, int kThreads, int kHeld>
__global__ void __launch_bounds__(kThreads)
    column_moments(Columns g, const T* x, double* parts, unsigned pieces) {
  const ColumnsPiece<kWidth, kThreads, kHeld> p(g, pieces);
  Held<T, kWidth> held[kHeld] = {};
  float center[kWidth] = {}, sum1[kWidth] = {}, sum2[kWidth] = {};
#pragma unroll
  for (int i = 0; i < kHeld; ++i)
    if (i < p.held) held[i].load(x + p.at(g, i));
#pragma unroll
  for (int i = 0; i < kHeld; ++i)
#pragma unroll
    for (int k = 0; k < kWidth; ++k) center[k] += held[i][k];
  column_sum<kWidth, kThreads>(center, sum1);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) center[k] /= static_cast<float>(p.rows), sum1[k] = 0;
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
  if (!p.writes(g)) return;
#pragma unroll
  for (int k = 0; k < kWidth; ++k)
    store_moments(parts + p.part(g, pieces) + 2 * k, center[k], sum1[k], sum2[k], p.rows);
}

// parts[matrix][piece][column]: sums of dy and of dy * xhat. Matrix n is sample n, or all samples.
template <class T, int kWidth, int kThreads, int kHeld, class Back>
__global__ void __launch_bounds__(kThreads)
    column_grad_sums(Columns g, const T* x, const T* dy, Statistics stats, Back back, float* parts,
                     unsigned pieces) {
  const ColumnsPiece<kWidth, kThreads, kHeld> p(g, pieces);
  float mean[kWidth] = {}, invstd[kWidth] = {}, sum[kWidth] = {}, sum_xhat[kWidth] = {};
  typename Back::Channel channel[kWidth] = {};
  if (p.held > 0) stats.load(mean, invstd, p.matrix, p.column), back.load(channel, p.column);
  constexpr int kAtOnce = kLoadsAtOnce / 2;
#pragma unroll 1
  for (int first = 0; first < p.held; first += kAtOnce) {
    Held<T, kWidth> a[kAtOnce], b[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (first + i < p.held) a[i].load(x + p.at(g, first + i)), b[i].load(dy + p.at(g, first + i));
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (first + i < p.held)
#pragma unroll
        for (int k = 0; k < kWidth; ++k) {
          const float xhat = (a[i][k] - mean[k]) * invstd[k], d = channel[k](b[i][k], xhat);
          sum[k] += d, sum_xhat[k] = fmaf(d, xhat, sum_xhat[k]);
        }
  }
  column_sum<kWidth, kThreads>(sum, sum_xhat);
  if (p.writes(g)) store_pairs(parts + p.part(g, pieces), sum, sum_xhat);
}

// --- parts put together ---

// Where the moments of one channel (or group) lie: `width` neighbours in each of `pieces` pieces, `stride`
// apart. Every piece but the last has `piece_numbers` numbers for each neighbour, all together `numbers`.
struct MomentParts {
  const double* parts;
  int64_t stride;
  unsigned pieces, width, piece_numbers, numbers;
};
struct MeanAndM2 {
  double mean, m2;
};
// By kThreads side by side, a warp or the whole block; each of them has the result.
template <int kThreads>
__device__ __forceinline__ MeanAndM2 merge_moments(const MomentParts& p) {
  const unsigned parts = p.pieces * p.width, thread = threadIdx.x % kThreads;
  const auto sum_of_all = [](double v) {
    if constexpr (kThreads == 32)
      return warp_sum(v);
    else
      return block_sum<kThreads>(v);
  };
  const auto part = [&](unsigned i) {
    return load_vector<2>(p.parts + 2 * (i / p.width * p.stride + i % p.width));
  };
  const auto numbers = [&](unsigned i) {
    const unsigned piece = i / p.width;
    return double(min(p.numbers - piece * p.piece_numbers, p.piece_numbers));
  };
  double sum = 0, m2 = 0;
  for (unsigned i = thread; i < parts; i += kThreads) sum += numbers(i) * part(i)[0];
  const double count = double(p.numbers) * p.width, mean = count > 0 ? sum_of_all(sum) / count : 0;
  for (unsigned i = thread; i < parts; i += kThreads) {
    const Vector<double, 2> of = part(i);
    const double d = of[0] - mean;
    m2 += of[1] + numbers(i) * d * d;
  }
  return {mean, sum_of_all(m2)};
}

// to0[c], to1[c] = sums over all parts[part][c][2].
struct StorePair {
  float *to0, *to1;
  __device__ void operator()(int64_t i, float sum) const {
    float* const to =
        i % 2 == 0 ? to0 : to1;  // by itself: GCC 12's -fsanitize=undefined divides in one branch only
    to[i / 2] = sum;
  }
};
inline void sum_parts(const float* parts, float* to0, float* to1, int64_t count, int64_t channels,
                      void* stream) {
  add_partials<double>(parts, count, 2 * channels, StorePair{to0, to1}, stream);
}

// --- numbers of an image one by one ---

// Of which sample and channel kWidth numbers of a plain tensor are.
struct Numbers {
  unsigned channels, pixels;
  template <int kWidth>
  __device__ __forceinline__ void find(unsigned vector, unsigned& n, unsigned& c) const {
    const unsigned first = vector * kWidth, of_sample = channels * pixels;
    n = first / of_sample;
    c = first % of_sample / pixels;
  }
};

}  // namespace lockstep::LOCKSTEP_DEVICE
