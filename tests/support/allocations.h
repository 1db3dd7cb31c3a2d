// SPDX-License-Identifier: Apache-2.0
// Counts every allocation by operator new, on any thread. Defines the operators of the whole executable: to
// be included by one of its files.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace lockstep::testing {

inline std::atomic<int64_t> allocations = 0;

inline void* counted(size_t bytes, size_t alignment) {
  ++allocations;
  void* p = alignment <= alignof(std::max_align_t)
                ? std::malloc(bytes ? bytes : 1)
                : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (!p) throw std::bad_alloc();
  return p;
}

}  // namespace lockstep::testing

// The array forms call these.
void* operator new(size_t bytes) { return lockstep::testing::counted(bytes, 1); }
void* operator new(size_t bytes, std::align_val_t a) {
  return lockstep::testing::counted(bytes, static_cast<size_t>(a));
}
// Its default calls the first one, but the address sanitizer brings its own.
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return lockstep::testing::counted(bytes, 1);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }
