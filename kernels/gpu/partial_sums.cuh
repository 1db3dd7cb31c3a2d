// SPDX-License-Identifier: Apache-2.0
// Sums over the rows of a matrix, in a fixed order: bias gradients, and the second half of reductions that
// were split.
#pragma once

#include <algorithm>

#include "kernels/gpu/reduce.h"
#include "kernels/gpu/vectors.h"

namespace lockstep::LOCKSTEP_DEVICE {

// Blocks that keep the largest GPUs busy. A constant, not the card's own number: sums are cut alike
// everywhere.
inline constexpr int64_t kBusyBlocks = 264;

// How many slices to cut `length` into when one slice takes `blocks` blocks, none shorter than `shortest`.
inline int64_t slices_for(int64_t blocks, int64_t length, int64_t shortest) {
  return std::clamp<int64_t>(kBusyBlocks / std::max<int64_t>(blocks, 1), 1,
                             std::max<int64_t>(length / shortest, 1));
}

inline constexpr int kSumThreads = 256;
inline constexpr int kLoadsAtOnce = 8;  // of a thread: two blocks of them hide memory's latency

// sum[k] += number k at at(i), for i = first, first + kStep, ... below end; pairwise what is loaded at once.
template <int kStep, class Sum, int kWidth, class At>
__device__ __forceinline__ void add_up(Sum (&sum)[kWidth], unsigned first, unsigned end, At at) {
  using T = std::remove_const_t<std::remove_pointer_t<decltype(at(first))>>;
  for (; first < end; first += kStep * kLoadsAtOnce) {
    Held<T, kWidth> held[kLoadsAtOnce] = {};
#pragma unroll
    for (int i = 0; i < kLoadsAtOnce; ++i)
      if (first + i * kStep < end) held[i].load(at(first + i * kStep));
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      float all[kLoadsAtOnce];
#pragma unroll
      for (int i = 0; i < kLoadsAtOnce; ++i) all[i] = held[i][k];
#pragma unroll
      for (int n = kLoadsAtOnce / 2; n > 0; n /= 2)
#pragma unroll
        for (int i = 0; i < n; ++i) all[i] += all[i + n];
      sum[k] += Sum{all[0]};
    }
  }
}

// store(s * columns + c, sum of x[row][c] over the rows of slice s). kRows threads share a column, kWidth
// columns a thread. Grid: (tiles of columns, slices).
template <class T, class Sum, int kRows, int kWidth, class Store>
__global__ void __launch_bounds__(kSumThreads)
    column_sums(const T* x, unsigned rows, unsigned columns, unsigned slice, Store store) {
  constexpr int kAcross = kSumThreads / kRows, kTile = kAcross * kWidth;
  constexpr int kOfWarp = kAcross < 32 ? 32 / kAcross : 1;  // rows
  static_assert(kTile <= kSumThreads);
  // A line of banks, and a gap after each: neither neighbours' columns nor every kWidth-th meet in a bank.
  constexpr unsigned kLine = 128 / sizeof(Sum);
  const auto with_gaps = [](unsigned c) { return c + c / kLine; };
  __shared__ Sum sums[kRows / kOfWarp][kTile + kTile / kLine];
  const unsigned thread = threadIdx.x, row = thread / kAcross, column = thread % kAcross * kWidth;
  const unsigned tile = blockIdx.x * kTile, begin = blockIdx.y * slice;
  Sum sum[kWidth] = {};
  if (tile + column < columns) {
    const T* const top = x + tile + column;
    add_up<kRows>(sum, begin + row, min(rows, begin + slice),
                  [&](unsigned r) { return top + uint64_t{r} * columns; });
  }
#pragma unroll
  for (int d = kAcross; d < 32; d *= 2)
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sum[k] += __shfl_xor_sync(kAllLanes, sum[k], d);
  if (row % kOfWarp == 0)
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sums[row / kOfWarp][with_gaps(column + k)] = sum[k];
  __syncthreads();
  if (thread >= kTile || tile + thread >= columns) return;
  Sum total = sums[0][with_gaps(thread)];
#pragma unroll
  for (int r = 1; r < kRows / kOfWarp; ++r) total += sums[r][with_gaps(thread)];
  store(int64_t{blockIdx.y} * columns + tile + thread, static_cast<float>(total));
}

template <class Sum, int kRows, class T, class Store>
void sum_columns(const T* x, int64_t rows, int64_t columns, int64_t slices, int64_t slice, Store store,
                 void* stream) {
  LOCKSTEP_ASSERT(std::max(rows, columns) < kMostElements, "a matrix of {} x {}", rows, columns);
  with_width<T>(columns % kVector<T> == 0, [&](auto width) {
    launch(column_sums<T, Sum, kRows, width, Store>,
           dim3(blocks(columns, kSumThreads / kRows * width), static_cast<unsigned>(slices)), kSumThreads, 0,
           stream, x, rows, columns, slice, store);
  });
}

// store(i, sum of partials[slice][i] over slices) for every i. Many slices are spread over threads; few have
// many i beside them.
template <class Sum = float, class Store>
void add_partials(const float* partials, int64_t slices, int64_t count, Store store, void* stream) {
  if (slices > 4 * kLoadsAtOnce)
    sum_columns<Sum, 64>(partials, slices, count, 1, slices, store, stream);
  else
    sum_columns<Sum, 4>(partials, slices, count, 1, slices, store, stream);
}

struct StoreFloat {
  float* to;
  __device__ void operator()(int64_t i, float sum) const { to[i] = sum; }
};

// to[column] = sum over rows of a row-major matrix; partials in a workspace of workspace_floats().
class ColumnSums {
 public:
  ColumnSums() = default;
  ColumnSums(int64_t rows, int64_t columns) : rows_(rows), columns_(columns) {
    const int64_t wanted = slices_for(blocks(columns, kSumThreads / kRows * kVector<bf16>), rows, kRows);
    slice_ = std::max<int64_t>(blocks(blocks(rows, wanted), kRows), 1) * kRows;
    slices_ = std::max<int64_t>(blocks(rows, slice_), 1);
  }
  int64_t workspace_floats() const { return slices_ * columns_; }
  template <class T>
  void run(const T* x, float* partials, float* to, void* stream) const {
    sum_columns<float, kRows>(x, rows_, columns_, slices_, slice_, StoreFloat{partials}, stream);
    add_partials(partials, slices_, columns_, StoreFloat{to}, stream);
  }

 private:
  static constexpr int kRows = 32;
  int64_t rows_ = 0, columns_ = 0, slices_ = 1, slice_ = 0;
};

}  // namespace lockstep::LOCKSTEP_DEVICE
