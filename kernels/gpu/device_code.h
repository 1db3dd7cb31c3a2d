// SPDX-License-Identifier: Apache-2.0
// The language of our GPU kernels: one .cu source, three objects.
//
// A room's kernels lie in kernels/<room>/*.cu, all in `namespace lockstep::LOCKSTEP_DEVICE`, which the build
// defines as cuda (nvcc), simt (the host compiler, for the executor: whole training steps) and simt_watched
// (the same with every memory access checked: tests). Example:
//
//   template <class T>
//   __global__ void relu(const T* x, T* y, int64_t n) {
//     const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
//     if (i < n) y[i] = T(fmaxf(float(x[i]), 0.0f));
//   }
//   ... in Kernel::run():  launch(relu<T>, blocks(n, 256), 256, 0, args.stream, x, y, n);
//
// Names and meanings are CUDA's: __global__, __shared__, __align__, threadIdx, __syncthreads (_count, _or,
// _and), __syncwarp, __shfl_*_sync, __ballot/any/all_sync, atomicAdd/Min/Max/Exch/CAS/Or/And on integers,
// __threadfence, float4 and its like, expf, rsqrtf, __popc, __float_as_uint, __fmul_rn (never contracted into
// an fma; nvcc may contract * and +; write fmaf where it matters).
// Beyond them, for T = float, bf16 or another type that vectors of 4, 8 or 16 bytes are made of:
//
//   bf16                                      2 bytes; float(b), bf16(f)
//   Vector<T> v = load16(p); store16(p, v)    16 bytes at once, aligned to 16; v[i] are its elements
//   Vector<T, N> v = load_vector<N>(p); store_vector(p, v)
//   dynamic_shared<T>()                       the launch's dynamic shared memory, aligned to 16
//   cp_async16(shared, global, valid_bytes)   16 bytes, those past valid_bytes zero; cp_async_commit(), cp_async_wait<N>()
//   cp_async16_if(exists, shared, global)     16 bytes, or zeros without a look at global
//   opaque(p)                                 p; no later address is computed from what p was computed from
//   ldmatrix_x4/_x2[_trans](r, row)           row: of this lane's matrix row in shared memory, aligned to 16
//   mma_m16n8k16(d, a, b)                     d[4] += a[4] b[2], bf16 pairs, float sums; fragments as PTX has them
//   pack_bf16(low, high)                      two floats as such a pair
//   named_barrier(id, threads)                bar.sync; id 1..15, whole warps
//   warp_sum, warp_max, block_sum<kThreads>   reduce.h
//   DeviceTable<T>                            constant device memory that a kernel makes in make() (launch.h)
// No float atomics: results repeat bit for bit. A grid of 0 blocks is legal and does nothing.
//
// Register: `void register_<room>(Registry&, Device)` in that namespace, listed in kernels/registry.cu; it serves all
// three. The name says what the kernel is ("tiled"); f32 and bf16 are an entry each; make() declines other
// dtypes and layouts. Test: the op's ordinary cases run on every simt kernel, in both types, watched and
// plain (tests/kernels/gpu_cases_test.cpp): add odd shapes; say in KernelCase::bf16_in/_out which tensors are
// bf16 where it isn't the batch's alone (weights).
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"

#ifdef __CUDACC__
#include "kernels/gpu/cuda_code.h"
#else
#include "kernels/gpu/simt/host_code.h"
#endif
#include "kernels/gpu/launch.h"
