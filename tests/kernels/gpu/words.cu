// SPDX-License-Identifier: Apache-2.0
// Sound kernels, one for each part of the vocabulary; words_test.cpp says what they must give. They double as
// examples that the watch must not complain about.
#include "kernels/gpu/device_code.h"
#include "tests/kernels/gpu/kernels.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr unsigned kAll = 0xFFFFFFFF;

// x[32 k + lane] = what shuffle k gives; y is the input.
__global__ void shuffles(const float* y, float* x) {
  const int l = static_cast<int>(threadIdx.x);
  const float v = y[l];
  x[l] = __shfl_sync(kAll, v, 5);
  x[32 + l] = __shfl_sync(kAll, v, l + 3, 8);
  x[64 + l] = __shfl_up_sync(kAll, v, 3u);
  x[96 + l] = __shfl_down_sync(kAll, v, 5u, 16);
  x[128 + l] = __shfl_xor_sync(kAll, v, 9);
  float half = v;
  if (l < 16)
    for (int d = 8; d > 0; d /= 2) half += __shfl_xor_sync(0x0000FFFFu, half, d);
  x[160 + l] = half;
  const double wide = __shfl_xor_sync(kAll, double(v) + 0.25, 1);
  x[192 + l] = static_cast<float>(wide);
}

__global__ void votes(int* i) {
  const int l = static_cast<int>(threadIdx.x);
  const unsigned odd = __ballot_sync(kAll, l & 1);
  if (l == 0) i[0] = static_cast<int>(odd);
  const int any = __any_sync(kAll, l == 31), none = __any_sync(kAll, l == 32);
  const int all = __all_sync(kAll, l < 32), most = __all_sync(kAll, l < 31);
  if (l == 1) i[1] = any * 8 + none * 4 + all * 2 + most;
  if (l >= 20) {
    const unsigned few = __ballot_sync(0xFFF00000u, l % 4 == 0);
    if (l == 20) i[2] = static_cast<int>(few);
  }
  i[3 + l % 2] = i[3 + l % 2];  // reads and writes of one's own block are no race
}

__global__ void block_votes(int* i) {
  const int t = static_cast<int>(threadIdx.x);
  const int count = __syncthreads_count(t % 3 == 0), some = __syncthreads_or(t == 63),
            all = __syncthreads_and(t < 63);
  if (t == 5) i[0] = count, i[1] = some, i[2] = all;
}

__global__ void atomics(int* i) {
  const int g = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  __shared__ int sum;
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  atomicAdd(&sum, g);
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(i, sum);
  atomicMax(i + 1, g);
  atomicMin(i + 2, -g);
  atomicOr(i + 3, 1 << g % 31);
  atomicAnd(i + 4, ~(1 << g % 31));
  if (g == 7) i[5] = atomicExch(i + 6, 9), i[7] = atomicCAS(i + 8, 0, 4);
}

// A reversed block through shared memory, in several ways of keeping order.
__global__ void reversed(const float* x, float* y) {
  const unsigned t = threadIdx.x, n = blockDim.x;
  float* a = dynamic_shared<float>();
  __shared__ float b[256];
  a[t] = x[t];
  __syncthreads();
  b[t] = a[n - 1 - t];
  __syncwarp();
  a[n - 1 - t] = b[t ^ 1];  // of the same warp: ordered by __syncwarp; a's reader was this thread
  named_barrier(static_cast<int>(1 + t / 64), 64);
  y[t] = b[t] + b[t ^ 32] - b[t ^ 32];  // of two warps: ordered by their barrier
}

// Threads without work wait too; after the last barrier they may leave, and votes and shuffles miss nobody who
// has.
__global__ void some_return_early(float* y, int n) {
  const int t = static_cast<int>(threadIdx.x);
  __shared__ float a[64];
  if (t < n) a[t] = 1;
  __syncthreads();
  if (t >= n) return;
  y[t] = a[n - 1 - t] + __shfl_sync(kAll, 0.0f, 0);
}

// i[t] = two numbers of x, as a pair of bf16: what rounds to even, what overflows and what is none.
__global__ void packing(const float* x, int* i) {
  i[threadIdx.x] = static_cast<int>(pack_bf16(x[2 * threadIdx.x], x[2 * threadIdx.x + 1]));
}

// The last block to arrive adds up what all have written: ordered by the fence and the atomic.
__global__ void last_block_sums(float* y, int* i) {
  __shared__ bool last;
  const int blocks_before = static_cast<int>(blockIdx.x);
  if (threadIdx.x == 0) {
    y[1 + blocks_before] = static_cast<float>(blocks_before + 1);
    __threadfence();
    last = atomicAdd(i, 1) == static_cast<int>(gridDim.x) - 1;
  }
  __syncthreads();
  if (!last || threadIdx.x != 0) return;
  __threadfence();
  float sum = 0;
  for (unsigned k = 0; k < gridDim.x; ++k) sum += y[1 + k];
  y[0] = sum;
}

// Two stages deep; the last row is short and filled with zeros. y[32 + t]: odd threads have zeros copied.
__global__ void copies(const float* x, float* y, int n) {
  __shared__ __align__(16) float a[2][128];
  const int t = static_cast<int>(threadIdx.x), rows = (n + 127) / 128;
  const auto start = [&](int row) {
    const int at = row * 128 + t * 4, left = (n - at) * 4;
    cp_async16(&a[row % 2][t * 4], x + (left > 0 ? at : 0), left >= 16 ? 16 : left > 0 ? left : 0);
    cp_async_commit();
  };
  start(0);
  float sum = 0;
  for (int row = 0; row < rows; ++row) {
    if (row + 1 < rows) {
      start(row + 1);
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    __syncthreads();
    for (int k = 0; k < 4; ++k) sum += a[row % 2][(t + 1) % 32 * 4 + k];
    __syncthreads();
  }
  y[t] = sum;
  cp_async16_if(t % 2 == 0, &a[0][t * 4], opaque(x) + t * 4);
  cp_async_commit();
  cp_async_wait<0>();
  y[32 + t] = a[0][t * 4 + 1];
}

// y[16][8] = A[16][16] B[16][8] with A row-major at x, B row-major behind it, both of bf16 exact integers. A
// comes by ldmatrix_x4, B by ldmatrix_x2_trans.
__global__ void matrix_product(const float* x, float* y) {
  __shared__ __align__(16) bf16 a[16][24], b[16][24];  // padded to 48 bytes: no bank conflicts
  const unsigned l = threadIdx.x;
  for (unsigned i = l; i < 256; i += 32) a[i / 16][i % 16] = bf16(x[i] - 100);
  for (unsigned i = l; i < 128; i += 32) b[i / 8][i % 8] = bf16(static_cast<float>(i % 11) - 5);
  __syncwarp();
  uint32_t fa[4], fb[2];
  float d[4] = {1, 2, 3, 4};
  ldmatrix_x4(fa, &a[l % 16][l / 16 * 8]);
  ldmatrix_x2_trans(fb, &b[l % 16][0]);
  mma_m16n8k16(d, fa, fb);
  const unsigned g = l / 4, t = l % 4;
  y[g * 8 + 2 * t] = d[0];
  y[g * 8 + 2 * t + 1] = d[1];
  y[(g + 8) * 8 + 2 * t] = d[2];
  y[(g + 8) * 8 + 2 * t + 1] = d[3];
}

// The fragments themselves: i[4 lane + r] of x4, then of x4_trans, of a matrix whose elements number
// themselves.
__global__ void fragments(int* i, bool transposed) {
  __shared__ __align__(16) uint16_t m[32][8];
  const unsigned l = threadIdx.x;
  for (unsigned k = 0; k < 8; ++k) m[l][k] = static_cast<uint16_t>(l * 8 + k);
  __syncwarp();
  uint32_t r[4], two[2];
  if (transposed) {
    ldmatrix_x4_trans(r, m[l]);
    ldmatrix_x2_trans(two, m[l % 16]);
  } else {
    ldmatrix_x4(r, m[l]);
    ldmatrix_x2(two, m[l % 16]);
  }
  // 64 integers: lane l's first and last register, as x2 must give the first two alike
  i[2 * l] = static_cast<int>(r[3]);
  i[2 * l + 1] = static_cast<int>(r[0] == two[0] && r[1] == two[1] ? r[0] : 0xFFFFFFFF);
}

__global__ void vectors(const float* x, float* y) {
  const float4 v = reinterpret_cast<const float4*>(x)[threadIdx.x];
  reinterpret_cast<float4*>(y)[threadIdx.x] = make_float4(v.w, v.z, v.y, v.x);
  const float2 w = reinterpret_cast<const float2*>(x + 128)[threadIdx.x];
  reinterpret_cast<float2*>(y + 128)[threadIdx.x] = make_float2(w.y, w.x);
  Vector<bf16> b = load16(reinterpret_cast<const bf16*>(x) + threadIdx.x * 8);
  b[0] = bf16(float(b[1]) * 0 + 3);
  store16(reinterpret_cast<bf16*>(y + 192) + threadIdx.x % 8 * 8, b);
}

// For the executor's speed: nothing but barriers.
__global__ void many_barriers(float* y, int n) {
  for (int i = 0; i < n; ++i) __syncthreads();
  y[threadIdx.x] = static_cast<float>(n);
}
__global__ void many_shuffles(float* y, int n) {
  float v = 1;
  for (int i = 0; i < n; ++i) v = __shfl_xor_sync(kAll, v, 1);
  y[threadIdx.x] = v;
}
__global__ void many_threads(float* y) {
  if (threadIdx.x == 0 && blockIdx.x == 0) y[0] = 1;
}

}  // namespace

TestKernels word_kernels() {
  TestKernels k;
#define ONE(name, kernel, grid, block, shared, ...) \
  k[name] = [](const TestMemory& m) { launch(kernel, grid, block, shared, nullptr, __VA_ARGS__); }
  ONE("shuffles", shuffles, 1, 32, 0, m.y, m.x);
  ONE("votes", votes, 1, 32, 0, m.i);
  ONE("block_votes", block_votes, 1, 64, 0, m.i);
  ONE("atomics", atomics, 3, 40, 0, m.i);
  ONE("reversed", reversed, 1, 256, 1024, m.x, m.y);
  ONE("some_return_early", some_return_early, 1, 64, 0, m.y, 37);
  ONE("packing", packing, 1, 64, 0, m.x, m.i);
  ONE("last_block_sums", last_block_sums, 9, 32, 0, m.y, m.i);
  ONE("copies", copies, 1, 32, 0, m.x, m.y, 253);
  ONE("matrix_product", matrix_product, 1, 32, 0, m.x, m.y);
  ONE("fragments", fragments, 1, 32, 0, m.i, false);
  ONE("fragments transposed", fragments, 1, 32, 0, m.i, true);
  ONE("vectors", vectors, 1, 32, 0, m.x, m.y);
  ONE("many_barriers", many_barriers, 1, 256, 0, m.y, 2000);
  ONE("many_shuffles", many_shuffles, 1, 256, 0, m.y, 2000);
  ONE("many_threads", many_threads, 10000, 256, 0, m.y);
  ONE("no blocks", many_threads, dim3(5, 0), 256, 0, m.y);
#undef ONE
  return k;
}

}  // namespace lockstep::LOCKSTEP_DEVICE
