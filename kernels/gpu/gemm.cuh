// SPDX-License-Identifier: Apache-2.0
// Launching matrix products (gemm_tile.cuh): the tile that fits, slices of k, what happens to D.
#pragma once

#include "kernels/gpu/activate.cuh"
#include "kernels/gpu/divider.cuh"
#include "kernels/gpu/gemm_tile.cuh"
#include "kernels/gpu/partial_sums.cuh"

namespace lockstep::LOCKSTEP_DEVICE {

// Where row m of D goes.
struct PlainRows {
  int64_t stride;
  __device__ int64_t operator()(int m) const { return m * stride; }
};

// T(act(D[m, n] + bias[n])) to data[row(m) + n].
template <class T, class RowAt>
struct Output {
  using Element = T;
  T* data;
  RowAt row;
  const float* bias = nullptr;
  Activation activation = Activation::none;

  __device__ float finish(float sum, int n) const {
    return activate(activation, sum + (bias ? bias[n] : 0.0f));
  }
  __device__ T* line(int m, int /*slice*/) const { return data + row(m); }
};

// partials[slice][m][n]; with one slice, D itself. Lines are aligned for what a thread writes at once
// (`whole`) where they have a multiple of kAtOnce floats.
struct Partials {
  using Element = float;
  template <class T>
  static constexpr int kAtOnce = sizeof(T) == 2 ? 2 : 4;
  float* data;
  int64_t stride, slice_stride;

  __device__ float finish(float sum, int) const { return sum; }
  __device__ float* line(int m, int slice) const { return data + slice * slice_stride + m * stride; }
};

struct GemmSize {
  int m = 0, n = 0, k = 0;
  int k_slice = 0;  // of a slice; a multiple of kDepth
};

template <int kM, int kN, bool kAAlongK, bool kBAlongK, class Out>
__device__ void store_tile(const FmaTile<kM, kN, kAAlongK, kBAlongK>& tile, const Out& out, int m0, int n0,
                           const GemmSize& size, bool whole) {
  using Tile = FmaTile<kM, kN, kAAlongK, kBAlongK>;
  // Where B's lines lie along n a thread has four neighbours; else its warp has, eight of them.
  constexpr int kEach = kBAlongK ? 1 : 4;
#pragma unroll
  for (int i = 0; i < Tile::kRows; ++i) {
    const int m = m0 + Tile::row(i);
    if (m >= size.m) continue;
    float* line = out.line(m, static_cast<int>(blockIdx.z));
#pragma unroll
    for (int j = 0; j < Tile::kColumns; j += kEach) {
      const int n = n0 + Tile::column(j);
      if (kEach > 1 && whole) {
        Vector<float> four;
#pragma unroll
        for (int e = 0; e < kEach; ++e) four[e] = n < size.n ? out.finish(tile.sums[i][j + e], n + e) : 0.0f;
        if (n < size.n) store16(line + n, four);
      } else {
#pragma unroll
        for (int e = 0; e < kEach; ++e)
          if (n + e < size.n) line[n + e] = out.finish(tile.sums[i][j + e], n + e);
      }
    }
  }
}

// bf16 goes through shared memory so that lines are written 16 bytes a lane (`whole`: they are aligned);
// float is written in the sectors that a fragment has anyway.
template <int kM, int kN, bool kAAlongK, bool kBAlongK, class Out>
__device__ void store_tile(const MmaTile<kM, kN, kAAlongK, kBAlongK>& tile, const Out& out, int m0, int n0,
                           const GemmSize& size, bool whole) {
  using Tile = MmaTile<kM, kN, kAAlongK, kBAlongK>;
  if constexpr (sizeof(typename Out::Element) == 4) {
#pragma unroll
    for (int i = 0; i < Tile::kRows; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int m = m0 + Tile::row(i) + 8 * half;
        if (m >= size.m) continue;
        float* line = out.line(m, static_cast<int>(blockIdx.z));
#pragma unroll
        for (int j = 0; j < Tile::kColumns; ++j) {
          const int n = n0 + Tile::column(j);
          const float two[2] = {tile.sums[i][j][2 * half], tile.sums[i][j][2 * half + 1]};
          if (whole) {
            if (n < size.n) *reinterpret_cast<float2*>(line + n) = make_float2(two[0], two[1]);
          } else {
            if (n < size.n) line[n] = two[0];
            if (n + 1 < size.n) line[n + 1] = two[1];
          }
        }
      }
  } else {
    constexpr int kStride = kN + 8;  // lines 16 bytes apart in the banks
    bf16* const shared = dynamic_shared<bf16>();
    __syncthreads();  // all buffers have been read
#pragma unroll
    for (int j = 0; j < Tile::kColumns; ++j) {
      const int n = n0 + Tile::column(j);
#pragma unroll
      for (int i = 0; i < Tile::kRows; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float low = n < size.n ? out.finish(tile.sums[i][j][2 * half], n) : 0.0f;
          const float high = n + 1 < size.n ? out.finish(tile.sums[i][j][2 * half + 1], n + 1) : 0.0f;
          *reinterpret_cast<uint32_t*>(shared + (Tile::row(i) + 8 * half) * kStride + Tile::column(j)) =
              pack_bf16(low, high);
        }
    }
    __syncthreads();
    constexpr int kPieces = kN / 8;
    for (int i = static_cast<int>(threadIdx.x); i < kM * kPieces; i += kGemmThreads<bf16>) {
      const int row = i / kPieces, piece = i % kPieces, m = m0 + row, n = n0 + piece * 8;
      if (m >= size.m || n >= size.n) continue;
      bf16* to = out.line(m, static_cast<int>(blockIdx.z)) + n;
      const Vector<bf16> v = load16(shared + row * kStride + piece * 8);
      if (whole) {
        store16(to, v);
      } else {
#pragma unroll
        for (int e = 0; e < 8; ++e)
          if (n + e < size.n) to[e] = v[e];
      }
    }
  }
}

// Grid: (tiles, n fastest; 1; slices).
template <class T, int kM, int kN, bool kAAlongK, bool kBAlongK, bool kWhole, class A, class B, class Out>
__global__ void __launch_bounds__(kGemmThreads<T>, gemm_blocks<T>(kM, kN, kAAlongK))
    gemm_kernel(A a, B b, Out out, GemmSize size, bool whole_lines) {
  const int tiles_n = (size.n + kN - 1) / kN;
  const int tile_m = static_cast<int>(blockIdx.x) / tiles_n,
            tile_n = static_cast<int>(blockIdx.x) - tile_m * tiles_n;
  const int k_begin = static_cast<int>(blockIdx.z) * size.k_slice;
  ProductTile<T, kM, kN, kAAlongK, kBAlongK> tile;
  multiply_tile<kM, kN, kAAlongK, kBAlongK, kWhole>(tile, a, b, tile_m * kM, tile_n * kN, k_begin,
                                                    min(size.k, k_begin + size.k_slice));
  store_tile(tile, out, tile_m * kM, tile_n * kN, size, whole_lines);
}

// D = A * B to `out` in tiles of kM x kN. kAAlongK, kBAlongK: how the sources' lines lie. kWhole: all pieces
// of A and B are aligned; whole_lines: so are out's lines.
template <class T, int kM, int kN, bool kAAlongK, bool kBAlongK, bool kWhole, class A, class B, class Out>
void gemm_in_tiles(const A& a, const B& b, const Out& out, GemmSize size, int64_t slices, bool whole_lines,
                   void* stream) {
  launch(gemm_kernel<T, kM, kN, kAAlongK, kBAlongK, kWhole, A, B, Out>,
         dim3(blocks(size.m, kM) * blocks(size.n, kN), 1, static_cast<unsigned>(slices)), kGemmThreads<T>,
         kGemmSharedBytes<T, kM, kN>, stream, a, b, out, size, whole_lines);
}

// The same with the largest tile that wastes little and keeps most of a GPU busy.
template <class T, bool kAAlongK, bool kBAlongK, class A, class B, class Out>
void gemm(const A& a, const B& b, const Out& out, const GemmSize& size, int64_t slices, bool whole,
          bool whole_lines, void* stream) {
  const auto busy = [&](int m, int n) {
    return int64_t{blocks(size.m, m)} * blocks(size.n, n) * slices >= kBusyBlocks / 2;
  };
  if (!whole)
    gemm_in_tiles<T, 64, 64, kAAlongK, kBAlongK, false>(a, b, out, size, slices, whole_lines, stream);
  else if (size.n > 64 && busy(128, 128))
    gemm_in_tiles<T, 128, 128, kAAlongK, kBAlongK, true>(a, b, out, size, slices, whole_lines, stream);
  else if (busy(128, 64))
    gemm_in_tiles<T, 128, 64, kAAlongK, kBAlongK, true>(a, b, out, size, slices, whole_lines, stream);
  else
    gemm_in_tiles<T, 64, 64, kAAlongK, kBAlongK, true>(a, b, out, size, slices, whole_lines, stream);
}

// How a long k is cut: partial sums keep the GPU busy where D alone has few tiles. Bits depend on it, so it
// depends on shapes alone.
template <class T>
struct SplitK {
  int64_t slices = 1;
  int k_slice = 0;
  SplitK() = default;
  SplitK(int64_t m, int64_t n, int64_t k) {
    const int64_t steps = (k + kDepth<T> - 1) / kDepth<T>;
    const int64_t wanted = slices_for((m + 127) / 128 * ((n + 127) / 128), steps, 8);
    const int64_t steps_each = std::max<int64_t>((steps + wanted - 1) / wanted, 1);
    slices = std::max<int64_t>((steps + steps_each - 1) / steps_each, 1);
    k_slice = static_cast<int>(steps_each * kDepth<T>);
  }
};
// All of k at once.
inline GemmSize unsplit(int64_t m, int64_t n, int64_t k) {
  for (int64_t extent : {m, n, k})
    LOCKSTEP_ASSERT(extent < (int64_t{1} << 31) - 256, "a matrix of {}", extent);
  const int depth = static_cast<int>(k);
  return {static_cast<int>(m), static_cast<int>(n), depth, (depth + 31) / 32 * 32};
}

}  // namespace lockstep::LOCKSTEP_DEVICE
