// SPDX-License-Identifier: Apache-2.0
// Stand-ins for NCCL's entry points that the program uses: ranks are processes of one host, which meet in a
// shared file. Sums are made in rank order, in f32, so that every rank holds the same bits.
//
// As with the real one, a communicator with blocking = 0 is at work on each call for some looks
// (ncclCommGetAsyncError) after it. Another call on it meanwhile is an invalid argument, and leaves its
// thread's group open: whatever that thread calls next is queued, and never done.
#include <fcntl.h>
#include <nccl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/core/bf16.h"
#include "tests/standins/injection.h"
#include "tests/standins/stream.h"

using lockstep::bf16;
using namespace lockstep::standins;

namespace {
constexpr size_t kSlot = 1 << 20;
constexpr int kMostRanks = 16;
constexpr int kLooks = 3, kForever = std::numeric_limits<int>::max();

thread_local int open_groups = 0;

struct Shared {
  std::atomic<int> arrived, generation, attached;
  alignas(64) std::byte slots[kMostRanks][kSlot];
};
}  // namespace

struct ncclComm {
  int rank = 0, size = 1;
  Shared* shared = nullptr;
  std::string path;
  bool blocking = true;
  std::atomic<bool> aborted{false};
  std::atomic<int> looks{0};  // until it is done with its last call
  const char* last_error = "";
  // Held by its work on streams, and by the graphs that have recorded it.
  std::shared_ptr<int> uses = std::make_shared<int>();

  // False where the communicator was aborted meanwhile.
  bool meet() {
    const int generation = shared->generation;
    if (shared->arrived.fetch_add(1) + 1 == size) {
      shared->arrived = 0;
      ++shared->generation;
      return !aborted;
    }
    while (shared->generation == generation) {
      if (aborted) return false;
      sched_yield();
    }
    return true;
  }
};

namespace {

// A call that is accepted, in a group of its own: at work from now on, or queued, if another is open.
ncclResult_t begin_work(ncclComm_t comm) {
  if (open_groups > 0)
    comm->looks = kForever;
  else if (!comm->blocking)
    comm->looks = kLooks;
  return comm->looks > 0 ? ncclInProgress : ncclSuccess;
}

// Whether the communicator takes a call now.
bool is_ready(ncclComm_t comm) {
  if (comm->looks == 0 || comm->aborted) return true;
  comm->last_error = "a call on a communicator that is still at work on the one before";
  ++open_groups;
  return false;
}

ncclResult_t start(const char* name, ncclComm_t comm, cudaStream_t stream, std::vector<Access> accesses,
                   Work work) {
  if (!is_ready(comm)) return ncclInvalidArgument;
  const Fate fate = fate_of(name);
  if (fate == Fate::fail) return ncclSystemError;
  const ncclResult_t result = begin_work(comm);
  if (comm->looks == kForever) return result;
  if (fate == Fate::hang)
    work = [comm] {
      while (!comm->aborted) sched_yield();
    };
  enqueue(stream, name, std::move(accesses), [work = std::move(work), uses = comm->uses] { work(); });
  return result;
}

template <class T>
void sum(ncclComm_t comm, const T* from, T* to, size_t n) {
  constexpr size_t kChunk = kSlot / sizeof(T);
  for (size_t at = 0; at < n; at += kChunk) {
    const size_t m = std::min(kChunk, n - at);
    std::memcpy(comm->shared->slots[comm->rank], from + at, m * sizeof(T));
    if (!comm->meet()) return;
    for (size_t i = 0; i < m; ++i) {
      float all = 0;
      for (int r = 0; r < comm->size; ++r)
        all += static_cast<float>(reinterpret_cast<const T*>(comm->shared->slots[r])[i]);
      to[at + i] = T(all);
    }
    if (!comm->meet()) return;
  }
}

}  // namespace

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t r) {
  return r == ncclSystemError       ? "injected failure"
         : r == ncclInvalidArgument ? "invalid argument"
                                    : "no error";
}
const char* ncclGetLastError(ncclComm_t comm) { return comm->last_error; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  if (fate_of("ncclGetUniqueId") != Fate::succeed) return ncclSystemError;
  std::memset(id, 0, sizeof *id);
  const char* folder = std::getenv("TMPDIR");
  std::snprintf(id->internal, sizeof id->internal, "%s/nccl-stand-in-%08x", folder ? folder : "/tmp",
                std::random_device()());
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* out, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  if (fate_of("ncclCommInitRankConfig") != Fate::succeed) return ncclSystemError;
  auto* comm = new ncclComm;
  comm->rank = rank, comm->size = size, comm->path = id.internal, comm->blocking = config->blocking != 0;
  count(1);
  *out = comm;
  const ncclResult_t result = begin_work(comm);
  if (comm->looks == kForever) return result;
  const int file = ::open(id.internal, O_RDWR | O_CREAT, 0600);
  if (file < 0 || ::ftruncate(file, sizeof(Shared)) != 0) return ncclSystemError;
  comm->shared =
      static_cast<Shared*>(::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
  ::close(file);
  // All have it open before it loses its name.
  ++comm->shared->attached;
  while (comm->shared->attached < size) sched_yield();
  ::unlink(id.internal);
  return result;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  *state = ncclSuccess;
  if (fate_of("ncclCommGetAsyncError") != Fate::succeed)
    *state = ncclSystemError;
  else if (comm->looks > 0)
    *state = ncclInProgress, comm->looks -= comm->looks < kForever;
  return ncclSuccess;
}
// Finalises first; both are done when it returns, whatever `blocking` says.
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (!is_ready(comm)) return ncclInvalidArgument;
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  while (comm->uses.use_count() > 1) {
    if (std::chrono::steady_clock::now() > limit)
      finding("ncclCommDestroy waits for a recorded graph that is still there");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ::munmap(comm->shared, sizeof(Shared));
  delete comm;
  count(-1);
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  log_call("abort");
  comm->aborted = true;
  return ncclSuccess;
}

ncclResult_t ncclMemAlloc(void** memory, size_t bytes) {
  if (fate_of("ncclMemAlloc") != Fate::succeed) return ncclSystemError;
  *memory = allocate_device(bytes);
  return *memory ? ncclSuccess : ncclUnhandledCudaError;
}
// Unlike cudaFree it waits for nothing.
ncclResult_t ncclMemFree(void* memory) {
  forget(memory, allocation_at(memory).bytes);
  release_device(memory);
  return ncclSuccess;
}
ncclResult_t ncclCommRegister(const ncclComm_t comm, void* memory, size_t bytes, void** handle) {
  if (!is_ready(comm)) return ncclInvalidArgument;
  if (fate_of("ncclCommRegister") != Fate::succeed) return ncclSystemError;
  log_call("register " + std::to_string(bytes));
  *handle = memory;
  count(1);
  return begin_work(comm);
}
ncclResult_t ncclCommDeregister(const ncclComm_t comm, void*) {
  if (!is_ready(comm)) return ncclInvalidArgument;
  count(-1);
  return begin_work(comm);
}

ncclResult_t ncclAllReduce(const void* send, void* recv, size_t n, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  const bool rounded = type == ncclBfloat16;
  if ((type != ncclFloat && !rounded) || op != ncclSum) return ncclInvalidArgument;
  const size_t bytes = n * (rounded ? sizeof(bf16) : sizeof(float));
  return start("ncclAllReduce", comm, stream, {reads(send, bytes), writes(recv, bytes)}, [=] {
    log_call("allreduce " + std::to_string(n) + (rounded ? " bf16" : ""));
    if (rounded)
      sum(comm, static_cast<const bf16*>(real(send)), static_cast<bf16*>(real(recv)), n);
    else
      sum(comm, static_cast<const float*>(real(send)), static_cast<float*>(real(recv)), n);
  });
}

ncclResult_t ncclAllGather(const void* send, void* recv, size_t n, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  if (type != ncclInt8) return ncclInvalidArgument;
  const size_t all = n * static_cast<size_t>(comm->size);
  return start("ncclAllGather", comm, stream, {reads(send, n), writes(recv, all)}, [=] {
    log_call("all_gather " + std::to_string(n));
    const auto* from = static_cast<const std::byte*>(real(send));
    auto* to = static_cast<std::byte*>(real(recv));
    for (size_t at = 0; at < n; at += kSlot) {
      const size_t m = std::min(kSlot, n - at);
      std::memcpy(comm->shared->slots[comm->rank], from + at, m);
      if (!comm->meet()) return;
      for (int r = 0; r < comm->size; ++r)
        std::memcpy(to + static_cast<size_t>(r) * n + at, comm->shared->slots[r], m);
      if (!comm->meet()) return;
    }
  });
}

}  // extern "C"
