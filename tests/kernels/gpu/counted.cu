// SPDX-License-Identifier: Apache-2.0
// Kernels of one warp whose accesses cost what counters_test.cpp says.
#include "kernels/gpu/device_code.h"
#include "tests/kernels/gpu/kernels.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

__global__ void side_by_side(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }
__global__ void far_apart(const float* x, float* y) { y[threadIdx.x] = x[8 * threadIdx.x]; }
__global__ void one_for_all(const float* x, float* y) { y[threadIdx.x] = x[3]; }
__global__ void vectors_off_by_half_a_sector(const float* x, float* y) {
  store16(y + 4 * threadIdx.x, load16(x + 4 + 4 * threadIdx.x));
}
__global__ void a_loop_with_a_tail(const float* x, float* y) {
  for (unsigned i = threadIdx.x; i < 40; i += 32) y[i] = x[i];
}
__global__ void twice_around_a_barrier(const float* x, float* y) {
  for (unsigned i = threadIdx.x; i < 64; i += 32) {
    if (threadIdx.x < 16 || i >= 32) y[i] = x[i];  // of the first round half a warp
    __syncthreads();
  }
}

// Writes column 0 of 32 rows of kPitch words.
template <int kPitch>
__global__ void column_of_shared(float* y) {
  __shared__ float tile[32 * kPitch];
  tile[threadIdx.x * kPitch] = 1;
  __syncthreads();
  y[threadIdx.x] = tile[0];
}
template <int kPitch>
__global__ void vectors_of_shared(const float* x, float* y) {
  __shared__ __align__(16) float tile[32 * kPitch];
  store16(tile + threadIdx.x * kPitch, load16(x + 4 * threadIdx.x));
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x * kPitch];
}
__global__ void matrices(uint32_t* i, const float* x) {
  __shared__ __align__(16) bf16 rows[32][8];
  cp_async16(rows[threadIdx.x], x + 4 * threadIdx.x);
  cp_async_commit();
  cp_async_wait<0>();
  __syncwarp();
  uint32_t r[4];
  ldmatrix_x4(r, rows[threadIdx.x]);
  i[threadIdx.x] = r[0];
}

}  // namespace

TestKernels counted_kernels() {
  TestKernels k;
#define ONE(kernel, ...) \
  k[#kernel] = [](const TestMemory& m) { launch(kernel, 1, 32, 0, nullptr, __VA_ARGS__); }
  ONE(side_by_side, m.x, m.y);
  ONE(far_apart, m.x, m.y);
  ONE(one_for_all, m.x, m.y);
  ONE(vectors_off_by_half_a_sector, m.x, m.y);
  ONE(a_loop_with_a_tail, m.x, m.y);
  ONE(twice_around_a_barrier, m.x, m.y);
  ONE(column_of_shared<32>, m.y);
  ONE(column_of_shared<33>, m.y);
  ONE(vectors_of_shared<4>, m.x, m.y);
  ONE(vectors_of_shared<8>, m.x, m.y);
  ONE(matrices, reinterpret_cast<uint32_t*>(m.i), m.x);
#undef ONE
  return k;
}

}  // namespace lockstep::LOCKSTEP_DEVICE
