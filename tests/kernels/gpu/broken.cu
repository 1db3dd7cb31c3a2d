// SPDX-License-Identifier: Apache-2.0
// Deliberately broken kernels. The line at fault carries the comment `// here`, the line it conflicts with
// `// other`; watch_test.cpp looks for them (of a race both lines are found, depending on which thread comes
// first).
#include "kernels/gpu/device_code.h"
#include "tests/kernels/gpu/kernels.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr unsigned kAll = 0xFFFFFFFF;

__global__ void write_past_the_end(float* x) {
  x[blockIdx.x * blockDim.x + threadIdx.x + 1] = 1;  // here
}

__global__ void read_before_the_start(const float* x, float* y) {
  const int i = static_cast<int>(threadIdx.x);
  y[i] = x[i - 1];  // here
}

__global__ void vector_past_the_end(const float* x, float* y, int n) {
  if (static_cast<int>(threadIdx.x) * 4 < n) {
    const Vector<float> v = load16(x + threadIdx.x * 4);  // here
    y[threadIdx.x] = v[0];
  }
}

__global__ void static_shared_past_the_end(float* y) {
  __shared__ float a[33];
  a[threadIdx.x + 2] = 1;  // here
  __syncthreads();
  y[threadIdx.x] = a[threadIdx.x < 2 ? 2 : threadIdx.x];
}

__global__ void dynamic_shared_past_the_end(float* y) {
  float* a = dynamic_shared<float>();
  a[threadIdx.x + 1] = 1;  // here
  __syncthreads();
  y[threadIdx.x] = a[threadIdx.x == 0 ? 1u : threadIdx.x];
}

__global__ void shared_never_written(float* y) {
  __shared__ float a[64];
  if (threadIdx.x < 32) a[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = a[threadIdx.x + 1];  // here
}

// Right of the first block, wrong of those after it.
__global__ void shared_kept_from_another_block(float* y) {
  __shared__ float a[32];
  if (blockIdx.x == 0) a[threadIdx.x] = 1;
  __syncthreads();
  y[blockIdx.x * 32 + threadIdx.x] = a[threadIdx.x];  // here
}

__global__ void race_read_after_write(float* y) {
  __shared__ float a[64];
  a[threadIdx.x] = static_cast<float>(threadIdx.x);  // other
  y[threadIdx.x] = a[(threadIdx.x ^ 1)];             // here
}

__global__ void race_write_after_read(float* y) {
  __shared__ float a[64];
  a[threadIdx.x] = 1;
  __syncthreads();
  const float v = a[63 - threadIdx.x];  // other
  a[threadIdx.x] = v + 1;               // here
  __syncthreads();
  y[threadIdx.x] = a[threadIdx.x];
}

// __syncwarp orders a warp's lanes, not the block's warps.
__global__ void race_between_warps(float* y) {
  __shared__ float a[64];
  a[threadIdx.x] = 1;  // other
  __syncwarp();
  y[threadIdx.x] = a[threadIdx.x ^ 32];  // here
}

// The two halves of a warp pass barriers of their own.
__global__ void race_between_halves(float* y) {
  __shared__ float a[32];
  a[threadIdx.x] = 1;  // other
  const unsigned half = threadIdx.x < 16 ? 0x0000FFFFu : 0xFFFF0000u;
  __syncwarp(half);
  y[threadIdx.x] = a[threadIdx.x ^ 16];  // here
}

__global__ void race_of_bytes(float* y) {
  __shared__ uint8_t a[64];
  a[threadIdx.x] = 1;                                              // other
  y[threadIdx.x] = a[threadIdx.x + (threadIdx.x < 63 ? 1u : 0u)];  // here
}

__global__ void blocks_write_one_element(float* y) {
  if (threadIdx.x == 0) y[0] = static_cast<float>(blockIdx.x);  // here
}

__global__ void block_reads_what_another_wrote(float* y) {
  y[blockIdx.x * 32 + threadIdx.x] = 1;
  if (blockIdx.x == 1) y[128 + threadIdx.x] = y[threadIdx.x];  // here
}

__global__ void different_barriers(float* y) {
  if (threadIdx.x != 0) __syncthreads();  // other
  __syncthreads();                        // here
  y[threadIdx.x] = 1;
}

__global__ void barrier_after_a_return(float* y, int n) {
  __shared__ float a[64];
  const int t = static_cast<int>(threadIdx.x);
  if (t >= n) return;
  a[t] = 1;
  __syncthreads();  // here
  y[t] = a[n - 1 - t];
}

__global__ void syncwarp_after_a_return(float* y) {
  if (threadIdx.x >= 20) return;
  __syncwarp();  // here
  y[threadIdx.x] = 1;
}

__global__ void mma_after_a_return(float* y) {
  float d[4] = {};
  const uint32_t a[4] = {}, b[2] = {};
  if (threadIdx.x >= 20) return;
  mma_m16n8k16(d, a, b);  // here
  y[threadIdx.x] = d[0];
}

__global__ void named_barrier_too_few(float* y) {
  if (threadIdx.x < 32) named_barrier(1, 64);  // here
  y[threadIdx.x] = 1;
}

__global__ void named_barrier_odd_count(float* y) {
  named_barrier(1, 33);  // here
  y[threadIdx.x] = 1;
}

__global__ void shuffle_in_a_branch(float* y) {
  float v = 1;
  if (threadIdx.x < 16) v += __shfl_xor_sync(kAll, v, 1);  // here
  __syncthreads();
  y[threadIdx.x] = v;
}

__global__ void shuffle_outside_its_mask(float* y) {
  float v = 1;
  if (threadIdx.x < 16) v += __shfl_xor_sync(0x0000FF00u, v, 1);  // here
  y[threadIdx.x] = v;
}

__global__ void shuffle_from_outside(float* y) {
  float v = 1;
  if (threadIdx.x < 16) v += __shfl_xor_sync(0x0000FFFFu, v, 16);  // here
  y[threadIdx.x] = v;
}

__global__ void shuffle_with_exited_lanes(float* y) {
  if (threadIdx.x >= 20) return;
  y[threadIdx.x] = __shfl_down_sync(kAll, 1.0f, 4);  // here
}

__global__ void mma_in_half_a_warp(float* y) {
  float d[4] = {};
  const uint32_t a[4] = {}, b[2] = {};
  if (threadIdx.x < 16) mma_m16n8k16(d, a, b);  // here
  y[threadIdx.x] = d[0];
}

__global__ void misaligned_vector(const float* x, float* y) {
  y[threadIdx.x] = load16(x + threadIdx.x * 4 + 1)[0];  // here
}

__global__ void misaligned_float4(const float* x, float* y) {
  const float4 v = *reinterpret_cast<const float4*>(x + 2 + threadIdx.x * 4);  // here
  y[threadIdx.x] = v.x;
}

__global__ void copy_not_waited_for(const float* x, float* y) {
  __shared__ __align__(16) float a[128];
  cp_async16(a + threadIdx.x * 4, x + threadIdx.x * 4);
  cp_async_commit();
  y[threadIdx.x] = a[threadIdx.x * 4];  // here
  cp_async_wait<0>();
}

__global__ void copy_waited_for_by_others_only(const float* x, float* y) {
  __shared__ __align__(16) float a[128];
  cp_async16(a + threadIdx.x * 4, x + threadIdx.x * 4);  // other
  cp_async_commit();
  cp_async_wait<0>();
  y[threadIdx.x] = a[(threadIdx.x ^ 1) * 4];  // here
}

__global__ void copy_over_what_is_read(const float* x, float* y) {
  __shared__ __align__(16) float a[128];
  for (int k = 0; k < 4; ++k) a[threadIdx.x * 4 + k] = 1;
  __syncthreads();
  y[threadIdx.x] = a[(threadIdx.x ^ 1) * 4];             // other
  cp_async16(a + threadIdx.x * 4, x + threadIdx.x * 4);  // here
  cp_async_commit();
  cp_async_wait<0>();
}

__global__ void copy_misaligned(const float* x, float* y) {
  __shared__ __align__(16) float a[132];
  cp_async16(a + threadIdx.x * 4, x + threadIdx.x * 4 + 1);  // here
  cp_async_commit();
  cp_async_wait<0>();
  y[threadIdx.x] = a[threadIdx.x * 4];
}

__global__ void atomic_past_the_end(int* i) {
  atomicAdd(i + 60 + threadIdx.x, 1);  // here
}

__global__ void too_much_static_shared(float* y) {  // here
  __shared__ float a[6 << 10], b[7 << 10];
  a[threadIdx.x] = 1;
  b[threadIdx.x] = 2;
  y[threadIdx.x] = a[threadIdx.x] + b[threadIdx.x];
}

__global__ void nothing(float*) {}  // here

}  // namespace

TestKernels broken_kernels() {
  TestKernels k;
#define ONE(kernel, grid, block, shared, ...) \
  k[#kernel] = [](const TestMemory& m) { launch(kernel, grid, block, shared, nullptr, __VA_ARGS__); }
  ONE(write_past_the_end, 4, 64, 0, m.x);
  ONE(read_before_the_start, 1, 32, 0, m.x, m.y);
  ONE(vector_past_the_end, 1, 96, 0, m.x, m.y, 257);
  ONE(static_shared_past_the_end, 1, 32, 0, m.y);
  ONE(dynamic_shared_past_the_end, 1, 32, 128, m.y);
  ONE(shared_never_written, 1, 32, 0, m.y);
  ONE(shared_kept_from_another_block, 2, 32, 0, m.y);
  ONE(race_read_after_write, 1, 64, 0, m.y);
  ONE(race_write_after_read, 1, 64, 0, m.y);
  ONE(race_between_warps, 1, 64, 0, m.y);
  ONE(race_between_halves, 1, 32, 0, m.y);
  ONE(race_of_bytes, 1, 64, 0, m.y);
  ONE(blocks_write_one_element, 3, 32, 0, m.y);
  ONE(block_reads_what_another_wrote, 2, 32, 0, m.y);
  ONE(different_barriers, 1, 64, 0, m.y);
  ONE(barrier_after_a_return, 1, 64, 0, m.y, 37);
  ONE(syncwarp_after_a_return, 1, 32, 0, m.y);
  ONE(mma_after_a_return, 1, 32, 0, m.y);
  ONE(named_barrier_too_few, 1, 64, 0, m.y);
  ONE(named_barrier_odd_count, 1, 64, 0, m.y);
  ONE(shuffle_in_a_branch, 1, 32, 0, m.y);
  ONE(shuffle_outside_its_mask, 1, 32, 0, m.y);
  ONE(shuffle_from_outside, 1, 32, 0, m.y);
  ONE(shuffle_with_exited_lanes, 1, 32, 0, m.y);
  ONE(mma_in_half_a_warp, 1, 32, 0, m.y);
  ONE(misaligned_vector, 1, 32, 0, m.x, m.y);
  ONE(misaligned_float4, 1, 32, 0, m.x, m.y);
  ONE(copy_not_waited_for, 1, 32, 0, m.x, m.y);
  ONE(copy_waited_for_by_others_only, 1, 32, 0, m.x, m.y);
  ONE(copy_over_what_is_read, 1, 32, 0, m.x, m.y);
  ONE(copy_misaligned, 1, 32, 0, m.x, m.y);
  ONE(atomic_past_the_end, 1, 32, 0, m.i);
  ONE(too_much_static_shared, 1, 32, 0, m.y);
#undef ONE
  const auto refused = [&](const char* name, dim3 grid, dim3 block, size_t shared) {
    k[name] = [=](const TestMemory& m) { launch(nothing, grid, block, shared, nullptr, m.x); };
  };
  refused("too_many_threads", 1, dim3(32, 33), 0);
  refused("block_too_deep", 1, dim3(1, 1, 65), 0);
  refused("too_many_blocks_in_y", dim3(1, 65536), 32, 0);
  refused("too_much_dynamic_shared", 1, 32, (163 << 10) + 16);
  return k;
}

}  // namespace lockstep::LOCKSTEP_DEVICE
