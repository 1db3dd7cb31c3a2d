// SPDX-License-Identifier: Apache-2.0
// Host memory of the runtime: 64-byte aligned (whole pages where large), zeroed, counted.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/core/error.h"

namespace lockstep {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Zeroed. 0 bytes is legal and gives a non-null address. Throws Error(Exit::io, "E_MEMORY") naming the
  // size.
  explicit AlignedBuffer(int64_t bytes);
  // Memory that somebody else has made, zeroed and aligned so, held by `owner`.
  AlignedBuffer(std::shared_ptr<void> owner, void* data, int64_t bytes);
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  ~AlignedBuffer();

  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
  std::shared_ptr<void> owner_;  // null: the heap's
};

// What this process may have of the host's memory: all of it, or what its cgroups allow.
int64_t usable_memory();

// For std::bad_alloc, which does not say what was asked for: what this process holds of what it may have.
Error out_of_memory();

// Bytes that AlignedBuffers hold now, and the most they ever held.
int64_t allocated_bytes();
int64_t peak_allocated_bytes();

}  // namespace lockstep
