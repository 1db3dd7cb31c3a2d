// SPDX-License-Identifier: Apache-2.0
// What a warp computes for the attention kernels: 16 rows against tiles of others, in the fragments of mma
// m16n8k16, of which lane 4 g + t holds, in columns 8 i .. 8 i + 7: [i][0], [i][1] of row g, columns 2 t and
// 2 t + 1; [i][2], [i][3] of row g + 8. bf16 by tensor cores; f32 by fma in the same places. Included by
// attention.cu.
#pragma once

#include "kernels/gpu/device_code.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

__device__ __forceinline__ int lane_of() { return static_cast<int>(threadIdx.x) % 32; }
__device__ __forceinline__ int lane_row() { return lane_of() / 4; }
__device__ __forceinline__ int lane_column() { return lane_of() % 4 * 2; }

// Elements from one row to the next in shared memory: 16 bytes more than it holds, so that 8 rows lie in
// different banks.
template <class T, int kWidth>
constexpr int kPitch = kWidth + 16 / static_cast<int>(sizeof(T));

// s[row, other] = sum over kWidth columns of rows[row] others[other]
template <int kWidth, int kOthers>
__device__ __forceinline__ void scores(const bf16* rows, const bf16* others, float (&s)[kOthers / 8][4]) {
  constexpr int kRow = kPitch<bf16, kWidth>;
  const int lane = lane_of();
  const bf16* a_at = rows + lane % 16 * kRow + lane / 16 * 8;
  const bf16* b_at = others + (lane % 8 + lane / 16 * 8) * kRow + lane / 8 % 2 * 8;
#pragma unroll
  for (int i = 0; i < kOthers / 8; ++i)
#pragma unroll
    for (int e = 0; e < 4; ++e) s[i][e] = 0;
#pragma unroll 4
  for (int k = 0; k < kWidth; k += 16) {
    uint32_t a[4];
    ldmatrix_x4(a, a_at + k);
#pragma unroll
    for (int i = 0; i < kOthers / 8; i += 2) {
      uint32_t b[4];
      ldmatrix_x4(b, b_at + i * 8 * kRow + k);
      const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
      mma_m16n8k16(s[i], a, first);
      mma_m16n8k16(s[i + 1], a, second);
    }
  }
}

// sums[row, column] += sum over others of weights[row, other] others[other, column], for kColumns columns of
// others.
template <int kWidth, int kOthers, int kColumns>
__device__ __forceinline__ void gather(const float (&weights)[kOthers / 8][4], const bf16* others,
                                       float (&sums)[kColumns / 8][4]) {
  constexpr int kRow = kPitch<bf16, kWidth>;
  const int lane = lane_of();
  const bf16* b_at = others + lane % 16 * kRow + lane / 16 * 8;
#pragma unroll
  for (int k = 0; k < kOthers / 16; ++k) {
    const uint32_t a[4] = {pack_bf16(weights[2 * k][0], weights[2 * k][1]),
                           pack_bf16(weights[2 * k][2], weights[2 * k][3]),
                           pack_bf16(weights[2 * k + 1][0], weights[2 * k + 1][1]),
                           pack_bf16(weights[2 * k + 1][2], weights[2 * k + 1][3])};
#pragma unroll
    for (int i = 0; i < kColumns / 8; i += 2) {
      uint32_t b[4];
      ldmatrix_x4_trans(b, b_at + k * 16 * kRow + i * 8);
      const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
      mma_m16n8k16(sums[i], a, first);
      mma_m16n8k16(sums[i + 1], a, second);
    }
  }
}

template <int kWidth, int kOthers>
__device__ __forceinline__ void scores(const float* rows, const float* others, float (&s)[kOthers / 8][4]) {
  constexpr int kRow = kPitch<float, kWidth>;
  const float *low = rows + lane_row() * kRow, *high = low + 8 * kRow, *other = others + lane_column() * kRow;
#pragma unroll
  for (int i = 0; i < kOthers / 8; ++i)
#pragma unroll
    for (int e = 0; e < 4; ++e) s[i][e] = 0;
#pragma unroll 2
  for (int k = 0; k < kWidth; k += 4) {
    const Vector<float> a = load16(low + k), b = load16(high + k);
#pragma unroll
    for (int i = 0; i < kOthers / 8; ++i) {
      const Vector<float> x = load16(other + i * 8 * kRow + k), y = load16(other + (i * 8 + 1) * kRow + k);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        s[i][0] = fmaf(a[e], x[e], s[i][0]);
        s[i][1] = fmaf(a[e], y[e], s[i][1]);
        s[i][2] = fmaf(b[e], x[e], s[i][2]);
        s[i][3] = fmaf(b[e], y[e], s[i][3]);
      }
    }
  }
}

template <int kWidth, int kOthers, int kColumns>
__device__ __forceinline__ void gather(const float (&weights)[kOthers / 8][4], const float* others,
                                       float (&sums)[kColumns / 8][4]) {
  constexpr int kRow = kPitch<float, kWidth>;
  const float* at = others + lane_column();
#pragma unroll
  for (int i = 0; i < kOthers / 8; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int source = (lane_of() & ~3) + j / 2;
      const float low = __shfl_sync(0xFFFFFFFF, weights[i][j % 2], source);
      const float high = __shfl_sync(0xFFFFFFFF, weights[i][2 + j % 2], source);
      const float* x = at + (i * 8 + j) * kRow;
#pragma unroll
      for (int c = 0; c < kColumns / 8; ++c) {
        const float2 v = *reinterpret_cast<const float2*>(x + c * 8);
        sums[c][0] = fmaf(low, v.x, sums[c][0]);
        sums[c][1] = fmaf(low, v.y, sums[c][1]);
        sums[c][2] = fmaf(high, v.x, sums[c][2]);
        sums[c][3] = fmaf(high, v.y, sums[c][3]);
      }
    }
}

// Over the four lanes that share a row.
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFF, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xFFFFFFFF, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(0xFFFFFFFF, x, 1);
  return x + __shfl_xor_sync(0xFFFFFFFF, x, 2);
}

template <int kColumns>
__device__ __forceinline__ void clear(float (&sums)[kColumns][4]) {
#pragma unroll
  for (int i = 0; i < kColumns; ++i)
#pragma unroll
    for (int e = 0; e < 4; ++e) sums[i][e] = 0;
}

// A fragment times a factor for each of its two rows, into shared memory.
template <int kWidth, class T, int kColumns>
__device__ __forceinline__ void put(T* rows, const float (&sums)[kColumns][4], float low, float high) {
  constexpr int kRow = kPitch<T, kWidth>;
  T* at = rows + lane_row() * kRow + lane_column();
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    at[i * 8] = T(sums[i][0] * low);
    at[i * 8 + 1] = T(sums[i][1] * low);
    at[8 * kRow + i * 8] = T(sums[i][2] * high);
    at[8 * kRow + i * 8 + 1] = T(sums[i][3] * high);
  }
}

}  // namespace
}  // namespace lockstep::LOCKSTEP_DEVICE
