// SPDX-License-Identifier: Apache-2.0
// What the fuzzers share: bytes as a file, and what may become of reading it.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "kernels/core/error.h"

namespace lockstep::fuzz {

// Bytes under a path, in memory.
class MemoryFile {
 public:
  MemoryFile(const uint8_t* data, size_t size) : descriptor_(::memfd_create("fuzz", 0)) {
    for (size_t done = 0; done < size;) {
      const ssize_t n = ::write(descriptor_, data + done, size - done);
      if (n <= 0) std::abort();
      done += static_cast<size_t>(n);
    }
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

// Whatever the bytes are, reading them ends well or with an Error that speaks of them.
template <class Read>
int reads(Read&& read) {
  try {
    read();
  } catch (const Error& e) {
    if (e.exit() == Exit::internal) throw;
  }
  return 0;
}

}  // namespace lockstep::fuzz
