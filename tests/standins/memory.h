// SPDX-License-Identifier: Apache-2.0
// The GPU's memory. Host code cannot touch it: an address that cudaMalloc gives leads nowhere, and work on
// streams finds the memory itself elsewhere (real()). An allocation ends where its page ends; memory that was
// freed is never given again.
#pragma once

#include <cstddef>
#include <string>

namespace lockstep::standins {

void* allocate_device(size_t bytes);  // not zeroed; at a multiple of 256
void release_device(void* memory);
// Pinned.
void* allocate_host(size_t bytes);
void release_host(void* memory);

struct Allocation {
  const std::byte* begin = nullptr;  // null: none
  size_t bytes = 0;
  bool on_device = false;
};
Allocation allocation_at(const void* address);

// Where work on a stream finds what lies at that address.
void* real_address(const void* address);
template <class T>
T* real(T* p) {
  return static_cast<T*>(real_address(p));
}

// What a GPU would not forgive: says so on stderr, and ends the process.
[[noreturn]] void finding(const std::string& what);

}  // namespace lockstep::standins
