// SPDX-License-Identifier: Apache-2.0
// The second half of a reduction that was split: partial sums, added in a fixed order.
#pragma once

#include <algorithm>

#include "kernels/gpu/device_code.h"

namespace lockstep::LOCKSTEP_DEVICE {

// Blocks that keep the largest GPUs busy. A constant, not the card's own number: sums are cut alike
// everywhere.
inline constexpr int64_t kBusyBlocks = 264;

// How many slices to cut `length` into when one slice takes `blocks` blocks, none shorter than `shortest`.
inline int64_t slices_for(int64_t blocks, int64_t length, int64_t shortest) {
  return std::clamp<int64_t>(kBusyBlocks / std::max<int64_t>(blocks, 1), 1,
                             std::max<int64_t>(length / shortest, 1));
}

inline constexpr int kPartialRows = 16;

// store(i, sum of partials[slice][i] over slices) for every i. Launched by add_partials.
template <class Store>
__global__ void add_partials_kernel(const float* partials, int slices, int64_t count, Store store) {
  __shared__ float sums[kPartialRows][32];
  const unsigned column = threadIdx.x, row = threadIdx.y;
  const int64_t i = int64_t{blockIdx.x} * 32 + column;
  float sum = 0;
  if (i < count)
    for (int s = static_cast<int>(row); s < slices; s += kPartialRows) sum += partials[s * count + i];
  sums[row][column] = sum;
  __syncthreads();
  if (row != 0 || i >= count) return;
  for (int r = 1; r < kPartialRows; ++r) sum += sums[r][column];
  store(i, sum);
}
template <class Store>
void add_partials(const float* partials, int64_t slices, int64_t count, Store store, void* stream) {
  launch(add_partials_kernel<Store>, blocks(count, 32), dim3(32, kPartialRows), 0, stream, partials,
         static_cast<int>(slices), count, store);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
