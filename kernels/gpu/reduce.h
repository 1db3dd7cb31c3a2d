// SPDX-License-Identifier: Apache-2.0
// Sums over a warp or a block, in a fixed order.
#pragma once

#include "kernels/gpu/device_code.h"

namespace lockstep::LOCKSTEP_DEVICE {

constexpr unsigned kAllLanes = 0xFFFFFFFF;

// Over groups of kLanes lanes (a power of two) of the whole warp; every lane has the sum.
template <int kLanes = 32, class T>
__device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
  for (int d = kLanes / 2; d > 0; d /= 2) v += __shfl_xor_sync(kAllLanes, v, d);
  return v;
}
template <int kLanes = 32>
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
  for (int d = kLanes / 2; d > 0; d /= 2) v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, d));
  return v;
}

// Two sums at once over a block of kThreads (a multiple of 32); every thread has them. All threads call it.
template <int kThreads, class T>
__device__ __forceinline__ void block_sum(T& a, T& b) {
  constexpr int kWarps = kThreads / 32;
  static_assert(kThreads % 32 == 0 && kWarps <= 32);
  __shared__ T partial[2][kWarps];
  a = warp_sum(a), b = warp_sum(b);
  __syncthreads();  // the partials of a call before are read
  if (threadIdx.x % 32 == 0) partial[0][threadIdx.x / 32] = a, partial[1][threadIdx.x / 32] = b;
  __syncthreads();
  a = 0, b = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) a += partial[0][i], b += partial[1][i];
}
template <int kThreads, class T>
__device__ __forceinline__ T block_sum(T a) {
  T none = 0;
  block_sum<kThreads>(a, none);
  return a;
}

}  // namespace lockstep::LOCKSTEP_DEVICE
