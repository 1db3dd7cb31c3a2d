// SPDX-License-Identifier: Apache-2.0
// Memory that processes of one host have in common.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace lockstep {

// One anonymous file in memory (memfd), mapped by every rank of a communicator whose ranks share a host. Its
// pages are reserved when it is made, so that no later access can fail; it needs no /dev/shm and leaves
// nothing behind.
class SharedRegion {
 public:
  // Collective over `host`. Null on all ranks where it cannot be had on one of them (no memory, no socket
  // between them). Zeroed.
  static std::shared_ptr<SharedRegion> create(MPI_Comm host, int64_t bytes);
  ~SharedRegion();
  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  SharedRegion(std::byte* data, int64_t bytes) : data_(data), bytes_(bytes) {}
  std::byte* data_;
  int64_t bytes_;
};

}  // namespace lockstep
