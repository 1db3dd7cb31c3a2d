// SPDX-License-Identifier: Apache-2.0
// The thread sanitizer's interface, as compilers call it under -fsanitize=thread. There is no sanitizer here:
// accesses of watched kernels go to the watch, all others nowhere.
#include <cstdint>

#include "kernels/gpu/simt/executor.h"
#include "kernels/gpu/watch/accesses.h"

namespace {

inline void accessed(const void* address, size_t bytes, bool write, const void* place, size_t alignment) {
  if (lockstep::simt_executor::position.watched)
    lockstep::gpu_watch::judge_access(address, bytes, alignment, write, place);
}

}  // namespace

#define PLACE __builtin_return_address(0)
#define ACCESS(N)                                                             \
  void __tsan_read##N(void* a) { accessed(a, N, false, PLACE, N); }           \
  void __tsan_write##N(void* a) { accessed(a, N, true, PLACE, N); }           \
  void __tsan_unaligned_read##N(void* a) { accessed(a, N, false, PLACE, 1); } \
  void __tsan_unaligned_write##N(void* a) { accessed(a, N, true, PLACE, 1); } \
  void __tsan_volatile_read##N(void* a) { accessed(a, N, false, PLACE, N); }  \
  void __tsan_volatile_write##N(void* a) { accessed(a, N, true, PLACE, N); }
// Atomics of host code in the same file; kernels' own are announced to the watch (host_code.h).
#define ATOMIC(BITS, T)                                                                                   \
  T __tsan_atomic##BITS##_load(const volatile T* a, int) { return __atomic_load_n(a, __ATOMIC_SEQ_CST); } \
  void __tsan_atomic##BITS##_store(volatile T* a, T v, int) { __atomic_store_n(a, v, __ATOMIC_SEQ_CST); } \
  T __tsan_atomic##BITS##_exchange(volatile T* a, T v, int) {                                             \
    return __atomic_exchange_n(a, v, __ATOMIC_SEQ_CST);                                                   \
  }                                                                                                       \
  T __tsan_atomic##BITS##_fetch_add(volatile T* a, T v, int) {                                            \
    return __atomic_fetch_add(a, v, __ATOMIC_SEQ_CST);                                                    \
  }                                                                                                       \
  T __tsan_atomic##BITS##_fetch_sub(volatile T* a, T v, int) {                                            \
    return __atomic_fetch_sub(a, v, __ATOMIC_SEQ_CST);                                                    \
  }                                                                                                       \
  T __tsan_atomic##BITS##_fetch_and(volatile T* a, T v, int) {                                            \
    return __atomic_fetch_and(a, v, __ATOMIC_SEQ_CST);                                                    \
  }                                                                                                       \
  T __tsan_atomic##BITS##_fetch_or(volatile T* a, T v, int) {                                             \
    return __atomic_fetch_or(a, v, __ATOMIC_SEQ_CST);                                                     \
  }                                                                                                       \
  T __tsan_atomic##BITS##_fetch_xor(volatile T* a, T v, int) {                                            \
    return __atomic_fetch_xor(a, v, __ATOMIC_SEQ_CST);                                                    \
  }                                                                                                       \
  int __tsan_atomic##BITS##_compare_exchange_strong(volatile T* a, T* c, T v, int, int) {                 \
    return __atomic_compare_exchange_n(a, c, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);               \
  }                                                                                                       \
  int __tsan_atomic##BITS##_compare_exchange_weak(volatile T* a, T* c, T v, int, int) {                   \
    return __atomic_compare_exchange_n(a, c, v, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                \
  }

extern "C" {
void __tsan_init();
void __tsan_func_entry(void*);
void __tsan_func_exit();
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void* a, unsigned long n) { accessed(a, n, false, PLACE, 1); }
void __tsan_write_range(void* a, unsigned long n) { accessed(a, n, true, PLACE, 1); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
ATOMIC(8, uint8_t)
ATOMIC(16, uint16_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) {}
}
