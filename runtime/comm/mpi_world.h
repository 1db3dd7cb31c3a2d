// SPDX-License-Identifier: Apache-2.0
// MPI itself, one per process, and the watchdog over all communicators' calls.
#pragma once

#include <mpi.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "runtime/comm/communicator.h"

namespace lockstep {

inline constexpr int64_t kMpiChunk = int64_t{1} << 28;  // elements of one call: MPI counts are ints

// Whether `mine` is true on all ranks. Collective.
bool all_agree(MPI_Comm comm, bool mine);

class MpiWorld {
 public:
  explicit MpiWorld(CommOptions options);
  ~MpiWorld();
  MpiWorld(const MpiWorld&) = delete;
  MpiWorld& operator=(const MpiWorld&) = delete;

  bool one_host() const { return one_host_; }
  bool fixed_order() const { return options_.fixed_order; }

  struct Slot {
    std::atomic<int64_t> since{0};  // ns; 0: idle
    std::atomic<const char*> what{""};
  };
  // A call in flight, seen by the watchdog. Slots are few: at most one call per thread.
  class Guard {
   public:
    Guard(MpiWorld& world, const char* what);
    ~Guard() {
      if (slot_) slot_->since = 0;
    }
    Guard(const Guard&) = delete;

   private:
    Slot* slot_ = nullptr;
  };

  void check(int code, const char* what);
  MPI_Comm duplicate(MPI_Comm comm);
  // In place, of any count.
  void allreduce(MPI_Comm comm, void* data, int64_t count, MPI_Datatype type, int64_t size, MPI_Op op);
  // Never returns: what other ranks hold is unknown, so nothing more can be done here but say so.
  [[noreturn]] void lost(const std::string& what);

 private:
  void watch();

  CommOptions options_;
  bool one_host_ = true;
  std::array<Slot, 16> slots_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  std::thread watchdog_;
};

}  // namespace lockstep
