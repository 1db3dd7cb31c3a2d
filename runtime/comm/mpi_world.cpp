// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/mpi_world.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "kernels/core/error.h"
#include "runtime/telemetry/trace.h"

namespace lockstep {
namespace {

bool mpi_was_started = false;

}  // namespace

bool all_agree(MPI_Comm comm, bool mine) {
  int yes = mine ? 1 : 0;
  return MPI_Allreduce(MPI_IN_PLACE, &yes, 1, MPI_INT, MPI_MIN, comm) == MPI_SUCCESS && yes == 1;
}

MpiWorld::MpiWorld(CommOptions options) : options_(std::move(options)) {
  mpi_was_started = true;
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided);
  if (provided < MPI_THREAD_MULTIPLE)
    throw Error(Exit::config, "E_MPI_THREADS", "this MPI library lacks MPI_THREAD_MULTIPLE");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  // A launcher of another MPI, or srun without PMI support, starts ranks that don't know of each other.
  if (const auto e = launcher_environment(); e.present && e.size != size) {
    MPI_Finalize();
    throw Error(Exit::disagree, "E_MPI_LAUNCHER",
                fmt::format("the launcher started {} ranks, but MPI sees {}", e.size, size))
        .hint("start the ranks with Open MPI's own mpirun, or with srun --mpi=pmix");
  }
  one_host_ = launcher_environment().local_size == size;
  watchdog_ = std::thread([this] { watch(); });
}

MpiWorld::~MpiWorld() {
  {
    Guard guard(*this, "finalize");
    MPI_Finalize();
  }
  {
    std::lock_guard lock(mutex_);
    done_ = true;
  }
  wake_.notify_all();
  watchdog_.join();
}

MpiWorld::Guard::Guard(MpiWorld& world, const char* what) {
  for (auto& s : world.slots_) {
    int64_t idle = 0;
    if (!s.since.compare_exchange_strong(idle, Trace::now_ns())) continue;
    slot_ = &s;
    s.what = what;
    return;
  }
}

void MpiWorld::check(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  lost(fmt::format("{} failed: {}", what, text));
}

MPI_Comm MpiWorld::duplicate(MPI_Comm comm) {
  Guard guard(*this, "duplicate");
  MPI_Comm copy = MPI_COMM_NULL;
  check(MPI_Comm_dup(comm, &copy), "duplicate");
  return copy;
}

void MpiWorld::allreduce(MPI_Comm comm, void* data, int64_t count, MPI_Datatype type, int64_t size,
                         MPI_Op op) {
  Guard guard(*this, "allreduce");
  for (int64_t at = 0; at < count; at += kMpiChunk) {
    const auto n = static_cast<int>(std::min(kMpiChunk, count - at));
    check(MPI_Allreduce(MPI_IN_PLACE, static_cast<std::byte*>(data) + at * size, n, type, op, comm),
          "allreduce");
  }
}

void MpiWorld::lost(const std::string& what) {
  static std::atomic<bool> told{false};
  if (told.exchange(true))
    for (;;) ::pause();
  if (options_.on_peer_lost) options_.on_peer_lost(what);
  ::_exit(static_cast<int>(Exit::try_again));
}

void MpiWorld::watch() {
  std::unique_lock lock(mutex_);
  const auto deadline = static_cast<int64_t>(options_.deadline_seconds * 1e9);
  while (!wake_.wait_for(lock, std::chrono::milliseconds(200), [&] { return done_; }))
    for (auto& s : slots_)
      if (const int64_t since = s.since; since && Trace::now_ns() - since > deadline)
        lost(fmt::format("{} has waited for its peers for more than {} s", s.what.load(),
                         options_.deadline_seconds));
}

}  // namespace lockstep

#ifdef __SANITIZE_ADDRESS__
// Open MPI leaves memory behind that its plugins allocated, and has unloaded them when leaks are looked for,
// so that no suppression can name them.
extern "C" int __lsan_is_turned_off() { return lockstep::mpi_was_started; }
#endif
