// SPDX-License-Identifier: Apache-2.0
// The ranks of a communicator that share a host, and how they sum without copying: each reads the others'
// gradients where they lie, sums its slice and writes it where it is used. Across hosts one rank of each goes
// on by MPI.
//
// Every call is collective over the communicator, in the same order on all ranks, one at a time. A host's
// ranks are summed as a binary tree, so results are bit-equal on all ranks.
#pragma once

#include <mpi.h>

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/mpi_world.h"
#include "runtime/comm/shared_region.h"
#include "runtime/comm/tree_sum.h"

namespace lockstep {

class HostGroup {
 public:
  // Null on all ranks where nothing is gained (one rank a host), where the ranks of some host cannot share
  // memory, or where a fixed order is wanted and the ranks of some host are no node of its tree.
  // ranks_per_host: 0: as the hosts are; else so many consecutive ranks are taken for a host's.
  static std::unique_ptr<HostGroup> create(MpiWorld& world, MPI_Comm comm, int ranks_per_host);
  ~HostGroup();
  HostGroup(const HostGroup&) = delete;
  HostGroup& operator=(const HostGroup&) = delete;

  // Zeroed memory of this rank that allreduce() knows on all of them. An empty buffer on all ranks where the
  // host lacks it. It may outlive the group.
  AlignedBuffer allocate(int64_t bytes);
  // Sum over all ranks of the communicator, for data in memory from allocate(), at the same offset on all
  // ranks. False, with nothing done, where it lies elsewhere; so on all ranks or on none.
  bool allreduce(std::span<float> data);

  // Small messages, over slots of the shared memory; on one host only.
  bool passes(size_t bytes) const { return hosts_ == 1 && bytes <= kSlot; }
  // recv has size * send.size() bytes, in rank order.
  void all_gather(std::span<const std::byte> send, std::byte* recv);
  // Every rank's `bytes` bytes, by rank; valid until the next call.
  const std::vector<const std::byte*>& exchange(const void* mine, size_t bytes);

 private:
  static constexpr size_t kSlot = 16 << 10;
  struct Flag;
  struct Arena {
    std::shared_ptr<SharedRegion> region;
    std::vector<float*> parts;  // by rank of the host
    int64_t floats = 0;
  };

  HostGroup(MpiWorld& world, MPI_Comm host, MPI_Comm leaders);
  void meet();  // all ranks of the host have come here
  Flag& flag(int rank) const;
  std::byte* slot(int rank, uint32_t parity) const;

  MpiWorld& world_;
  MPI_Comm host_, leaders_;
  int rank_ = 0, size_ = 1, hosts_ = 1;
  int spins_ = 0;
  uint32_t meetings_ = 0;
  std::shared_ptr<SharedRegion> control_;
  std::vector<Arena> arenas_;
  std::vector<const std::byte*> received_;
  std::optional<TreeSum> over_hosts_;  // of leaders
};

}  // namespace lockstep
