// SPDX-License-Identifier: Apache-2.0
// device_code.h for the host compiler: CUDA's words, performed by the executor.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/gpu/simt/executor.h"

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define __align__(n) __attribute__((aligned(n)))
#ifndef __restrict__
#define __restrict__ __restrict
#endif

#ifdef LOCKSTEP_WATCHED
#define LOCKSTEP_UNWATCHED __attribute__((no_sanitize("thread")))
#define LOCKSTEP_HERE ::lockstep::simt_executor::here()
#else
#define LOCKSTEP_UNWATCHED
#define LOCKSTEP_HERE ::lockstep::simt_executor::position
#endif
// Names of the language: macros, since a kernel's own names must not hide them.
#define threadIdx (LOCKSTEP_HERE.thread)
#define blockIdx (LOCKSTEP_HERE.block)
#define blockDim (LOCKSTEP_HERE.block_dim)
#define gridDim (LOCKSTEP_HERE.grid_dim)
// Inlined, so that a finding's place is the kernel's line.
#define LOCKSTEP_WORD __attribute__((always_inline)) inline

namespace lockstep::LOCKSTEP_DEVICE {

using simt_executor::dim3;
constexpr int warpSize = 32;

// --- vector types: moved whole, as the GPU does ---

namespace detail {
template <size_t kBytes>
struct Word;
template <>
struct Word<4> {
  using type = uint32_t __attribute__((may_alias));
};
template <>
struct Word<8> {
  using type = uint64_t __attribute__((may_alias));
};
template <>
struct Word<16> {
  using type = unsigned __int128 __attribute__((may_alias));
};

template <class To, class From>
LOCKSTEP_WORD void move(To* to, const From* from) {
  using W = typename Word<sizeof(From)>::type;
  *reinterpret_cast<W*>(to) = *reinterpret_cast<const W*>(from);
}
}  // namespace detail

#define LOCKSTEP_VECTOR2(name, T)                                 \
  struct alignas(2 * sizeof(T)) name {                            \
    T x, y;                                                       \
    name() = default;                                             \
    LOCKSTEP_WORD name(T x_, T y_) : x(x_), y(y_) {}              \
    LOCKSTEP_WORD name(const name& o) { detail::move(this, &o); } \
    LOCKSTEP_WORD name& operator=(const name& o) {                \
      detail::move(this, &o);                                     \
      return *this;                                               \
    }                                                             \
  };                                                              \
  LOCKSTEP_WORD name make_##name(T x, T y) { return name(x, y); }
#define LOCKSTEP_VECTOR4(name, T)                                              \
  struct alignas(4 * sizeof(T)) name {                                         \
    T x, y, z, w;                                                              \
    name() = default;                                                          \
    LOCKSTEP_WORD name(T x_, T y_, T z_, T w_) : x(x_), y(y_), z(z_), w(w_) {} \
    LOCKSTEP_WORD name(const name& o) { detail::move(this, &o); }              \
    LOCKSTEP_WORD name& operator=(const name& o) {                             \
      detail::move(this, &o);                                                  \
      return *this;                                                            \
    }                                                                          \
  };                                                                           \
  LOCKSTEP_WORD name make_##name(T x, T y, T z, T w) { return name(x, y, z, w); }
LOCKSTEP_VECTOR2(float2, float)
LOCKSTEP_VECTOR2(int2, int)
LOCKSTEP_VECTOR2(uint2, unsigned)
LOCKSTEP_VECTOR4(float4, float)
LOCKSTEP_VECTOR4(int4, int)
LOCKSTEP_VECTOR4(uint4, unsigned)
#undef LOCKSTEP_VECTOR2
#undef LOCKSTEP_VECTOR4

template <class T, int kElements = 16 / sizeof(T)>
struct alignas(kElements * sizeof(T)) Vector {
  static constexpr int kCount = kElements;
  T v[kCount];
  LOCKSTEP_WORD T& operator[](int i) { return v[i]; }
  LOCKSTEP_WORD const T& operator[](int i) const { return v[i]; }
};
template <int kCount, class T>
LOCKSTEP_WORD Vector<T, kCount> load_vector(const T* p) {
  Vector<T, kCount> r;
  detail::move(&r, reinterpret_cast<const Vector<T, kCount>*>(p));
  return r;
}
template <class T, int kCount>
LOCKSTEP_WORD void store_vector(T* p, const Vector<T, kCount>& v) {
  detail::move(reinterpret_cast<Vector<T, kCount>*>(p), &v);
}

template <class T>
LOCKSTEP_WORD T* opaque(T* p) {
  return p;
}

// --- barriers, fences, warps ---

LOCKSTEP_WORD void __syncthreads() { simt_executor::block_barrier(); }
LOCKSTEP_WORD int __syncthreads_count(int p) { return simt_executor::block_barrier_count(p != 0); }
LOCKSTEP_WORD int __syncthreads_or(int p) { return simt_executor::block_barrier_count(p != 0) != 0; }
LOCKSTEP_WORD int __syncthreads_and(int p) { return simt_executor::block_barrier_count(p == 0) == 0; }
LOCKSTEP_WORD void __syncwarp(unsigned mask = 0xFFFFFFFF) { simt_executor::warp_barrier(mask); }
LOCKSTEP_WORD void named_barrier(int id, int threads) {
  simt_executor::named_barrier(static_cast<unsigned>(id), static_cast<unsigned>(threads));
}
LOCKSTEP_WORD void __threadfence() { simt_executor::fence(); }
LOCKSTEP_WORD void __threadfence_block() {}

namespace detail {
template <class T>
LOCKSTEP_WORD T shuffle(unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  bits = simt_executor::shuffle(mask, bits, source);
  T r;
  __builtin_memcpy(&r, &bits, sizeof(T));
  return r;
}
}  // namespace detail

// Lanes are cut into groups of `width`, which lanes outside answer for themselves, as CUDA has it.
template <class T>
LOCKSTEP_WORD T __shfl_sync(unsigned mask, T v, int source, int width = 32) {
  const unsigned w = static_cast<unsigned>(width), base = simt_executor::lane() & ~(w - 1);
  return detail::shuffle(mask, v, base + (static_cast<unsigned>(source) & (w - 1)));
}
template <class T>
LOCKSTEP_WORD T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32) {
  const unsigned lane = simt_executor::lane(), base = lane & ~(static_cast<unsigned>(width) - 1);
  return detail::shuffle(mask, v, lane - base >= delta ? lane - delta : lane);
}
template <class T>
LOCKSTEP_WORD T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32) {
  const unsigned w = static_cast<unsigned>(width), lane = simt_executor::lane(), base = lane & ~(w - 1);
  return detail::shuffle(mask, v, lane - base + delta < w ? lane + delta : lane);
}
template <class T>
LOCKSTEP_WORD T __shfl_xor_sync(unsigned mask, T v, int lanes, int width = 32) {
  const unsigned w = static_cast<unsigned>(width), lane = simt_executor::lane();
  const unsigned source = lane ^ static_cast<unsigned>(lanes);
  // A group further on answers for itself; an earlier one may be read.
  return detail::shuffle(mask, v, source < (lane & ~(w - 1)) + w ? source : lane);
}
LOCKSTEP_WORD unsigned __ballot_sync(unsigned mask, int p) { return simt_executor::ballot(mask, p != 0); }
LOCKSTEP_WORD int __any_sync(unsigned mask, int p) { return simt_executor::ballot(mask, p != 0) != 0; }
LOCKSTEP_WORD int __all_sync(unsigned mask, int p) { return simt_executor::ballot(mask, p == 0) == 0; }

// --- integer atomics ---

#define LOCKSTEP_ATOMIC(name, expression)                                                                  \
  template <class T>                                                                                       \
  LOCKSTEP_UNWATCHED inline T name(T* p, std::type_identity_t<T> v) {                                      \
    static_assert(std::is_integral_v<T> && sizeof(T) >= 4, "no float atomics: their sums do not repeat");  \
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);                                                          \
    while (!__atomic_compare_exchange_n(p, &old, expression, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) { \
    }                                                                                                      \
    return old;                                                                                            \
  }
namespace detail {
LOCKSTEP_ATOMIC(add, static_cast<T>(old + v))
LOCKSTEP_ATOMIC(min, old < v ? old : v)
LOCKSTEP_ATOMIC(max, old < v ? v : old)
LOCKSTEP_ATOMIC(exchange, v)
LOCKSTEP_ATOMIC(bit_or, old | v)
LOCKSTEP_ATOMIC(bit_and, old& v)
template <class T>
LOCKSTEP_UNWATCHED inline T compare_and_swap(T* p, T expected, T v) {
  __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return expected;
}
}  // namespace detail
#undef LOCKSTEP_ATOMIC
#define LOCKSTEP_ATOMIC(cuda_name, function)                   \
  template <class T>                                           \
  LOCKSTEP_WORD T cuda_name(T* p, std::type_identity_t<T> v) { \
    simt_executor::atomic_access(p, sizeof(T));                \
    return detail::function(p, v);                             \
  }
LOCKSTEP_ATOMIC(atomicAdd, add)
LOCKSTEP_ATOMIC(atomicMin, min)
LOCKSTEP_ATOMIC(atomicMax, max)
LOCKSTEP_ATOMIC(atomicExch, exchange)
LOCKSTEP_ATOMIC(atomicOr, bit_or)
LOCKSTEP_ATOMIC(atomicAnd, bit_and)
#undef LOCKSTEP_ATOMIC
template <class T>
LOCKSTEP_WORD T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  simt_executor::atomic_access(p, sizeof(T));
  return detail::compare_and_swap<T>(p, expected, v);
}

// --- shared memory, copies, tensor cores ---

template <class T>
LOCKSTEP_WORD T* dynamic_shared() {
  return reinterpret_cast<T*>(LOCKSTEP_HERE.shared);
}
LOCKSTEP_WORD void cp_async16(void* shared, const void* global, int valid_bytes = 16) {
  simt_executor::async_copy16(shared, global, valid_bytes);
}
LOCKSTEP_WORD void cp_async16_if(bool exists, void* shared, const void* global) {
  cp_async16(shared, global, exists ? 16 : 0);
}
LOCKSTEP_WORD void cp_async_commit() { simt_executor::async_commit(); }
template <int kGroupsLeft>
LOCKSTEP_WORD void cp_async_wait() {
  simt_executor::async_wait(kGroupsLeft);
}
LOCKSTEP_WORD void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  simt_executor::load_matrix(r, row, 4, false);
}
LOCKSTEP_WORD void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
  simt_executor::load_matrix(r, row, 2, false);
}
LOCKSTEP_WORD void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  simt_executor::load_matrix(r, row, 4, true);
}
LOCKSTEP_WORD void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) {
  simt_executor::load_matrix(r, row, 2, true);
}
LOCKSTEP_WORD void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  simt_executor::mma_bf16_16x8x16(d, a, b);
}

// --- numbers ---

LOCKSTEP_WORD uint32_t __float_as_uint(float x) { return std::bit_cast<uint32_t>(x); }
LOCKSTEP_WORD float __uint_as_float(uint32_t x) { return std::bit_cast<float>(x); }
LOCKSTEP_WORD int __float_as_int(float x) { return std::bit_cast<int>(x); }
LOCKSTEP_WORD float __int_as_float(int x) { return std::bit_cast<float>(x); }
LOCKSTEP_WORD int __popc(unsigned x) { return std::popcount(x); }
LOCKSTEP_WORD int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
LOCKSTEP_WORD int __ffs(int x) { return __builtin_ffs(x); }
// Never contracted into an fma, as nvcc may do with * and +.
LOCKSTEP_WORD float __fadd_rn(float a, float b) { return a + b; }
LOCKSTEP_WORD float __fsub_rn(float a, float b) { return a - b; }
LOCKSTEP_WORD float __fmul_rn(float a, float b) { return a * b; }
LOCKSTEP_WORD float __fdiv_rn(float a, float b) { return a / b; }
LOCKSTEP_WORD float __fsqrt_rn(float a) { return std::sqrt(a); }
LOCKSTEP_WORD float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
template <class T>
LOCKSTEP_WORD T __ldg(const T* p) {
  return *p;
}
template <class T>
LOCKSTEP_WORD T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
LOCKSTEP_WORD T max(T a, T b) {
  return a < b ? b : a;
}

}  // namespace lockstep::LOCKSTEP_DEVICE

#undef LOCKSTEP_WORD
