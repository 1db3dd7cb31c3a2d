// SPDX-License-Identifier: Apache-2.0
// MPI itself, one per process, and the watchdog over all communicators' calls.
#pragma once

#include <mpi.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/roll_call.h"

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
  // The number of the next communicator: the same on all ranks, which make them in one order.
  int next_communicator() { return communicators_++; }

  struct Slot {
    std::atomic<int64_t> since{0};  // ns; 0: idle
    std::atomic<const char*> what{""};
    std::atomic<int> communicator{0};
    std::atomic<uint32_t> number{0};  // of this call, among the communicator's
  };
  // A call in flight, seen by the watchdog. Slots are few: at most one call per thread. All ranks make a
  // communicator's calls in one order, so that their number says who has come to this one.
  class Guard {
   public:
    Guard(MpiWorld& world, int communicator, const char* what);
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
  // Tells the others (Communicator::leave).
  void leave(const Error& error);

 private:
  // A look at who has come to a call that is overdue.
  struct Inquiry {
    const Slot* slot = nullptr;
    int64_t call = 0;              // the slot's `since`
    int64_t asked = 0, until = 0;  // ns; then once more
    bool judged = false;
  };

  std::vector<std::string> gather_hosts();
  std::string named(const std::vector<int>& ranks) const;
  std::string describe(const Slot& slot) const;
  Standing standing() const;
  const Slot* overdue(int64_t now) const;

  void watch();
  void forgive(int64_t nanoseconds);
  void probe(int64_t now);
  void remark_on_own_work(int64_t now);
  void inquire(int64_t now);
  // Who is to blame for the call not having ended; none: nobody yet. Null: for the call that has failed.
  std::optional<Error> verdict(const Slot* slot, int64_t now) const;
  // Never return: what other ranks hold is unknown, so nothing more can be done here but say so.
  [[noreturn]] void lost(const Error& error);
  [[noreturn]] void end(const LostPeer& lost);
  void part(const Error& error);
  int64_t deadline_ns() const { return static_cast<int64_t>(options_.deadline_seconds * 1e9); }

  CommOptions options_;
  bool one_host_ = true;
  std::vector<std::string> hosts_;     // by rank
  std::atomic<int> communicators_{1};  // 0: calls of no communicator
  std::array<std::atomic<uint32_t>, kCountedCommunicators> begun_{};
  std::array<Slot, 16> slots_;

  // The watchdog's, and under the mutex.
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  std::optional<RollCall> roll_;  // none once MPI is being left
  Inquiry inquiry_;
  std::string failed_call_;  // what MPI has said of one
  int64_t own_work_noted_ = 0;
  int64_t probe_until_ = 0;  // 0: it is over
  std::thread watchdog_;
};

}  // namespace lockstep
