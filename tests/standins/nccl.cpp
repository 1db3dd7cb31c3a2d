// SPDX-License-Identifier: Apache-2.0
// Stand-ins for NCCL's entry points that the program uses: ranks are processes of one host, which meet in a
// shared file. Sums are made in rank order, in f32, so that every rank holds the same bits.
#include <fcntl.h>
#include <nccl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#include "kernels/core/bf16.h"
#include "tests/standins/injection.h"
#include "tests/standins/stream.h"

using lockstep::bf16;
using namespace lockstep::standins;

namespace {
constexpr size_t kSlot = 1 << 20;
constexpr int kMostRanks = 16;

struct Shared {
  std::atomic<int> arrived, generation, attached;
  alignas(64) std::byte slots[kMostRanks][kSlot];
};
}  // namespace

struct ncclComm {
  int rank = 0, size = 1;
  Shared* shared = nullptr;
  std::string path;
  std::atomic<bool> aborted{false};
  std::atomic<ncclResult_t> state{ncclSuccess};

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

ncclResult_t start(const char* name, ncclComm_t comm, cudaStream_t stream, Work work) {
  const Fate fate = fate_of(name);
  if (fate == Fate::fail) return ncclSystemError;
  if (fate == Fate::hang)
    work = [comm] {
      while (!comm->aborted) sched_yield();
    };
  enqueue(stream, std::move(work));
  return ncclSuccess;
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

const char* ncclGetErrorString(ncclResult_t r) {
  return r == ncclSystemError ? "injected failure" : "no error";
}
const char* ncclGetLastError(ncclComm_t) { return ""; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  if (fate_of("ncclGetUniqueId") != Fate::succeed) return ncclSystemError;
  std::memset(id, 0, sizeof *id);
  const char* folder = std::getenv("TMPDIR");
  std::snprintf(id->internal, sizeof id->internal, "%s/nccl-stand-in-%08x", folder ? folder : "/tmp",
                std::random_device()());
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* out, int size, ncclUniqueId id, int rank, ncclConfig_t*) {
  if (fate_of("ncclCommInitRankConfig") != Fate::succeed) return ncclSystemError;
  auto* comm = new ncclComm;
  comm->rank = rank, comm->size = size, comm->path = id.internal;
  const int file = ::open(id.internal, O_RDWR | O_CREAT, 0600);
  if (file < 0 || ::ftruncate(file, sizeof(Shared)) != 0) return ncclSystemError;
  comm->shared =
      static_cast<Shared*>(::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
  ::close(file);
  count(1);
  // All have it open before it loses its name.
  ++comm->shared->attached;
  while (comm->shared->attached < size) sched_yield();
  ::unlink(id.internal);
  *out = comm;
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  *state = fate_of("ncclCommGetAsyncError") == Fate::succeed ? comm->state.load() : ncclSystemError;
  return ncclSuccess;
}
ncclResult_t ncclCommFinalize(ncclComm_t) { return ncclSuccess; }
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
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
  *memory = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  std::memset(*memory, 0xA5, bytes);
  count(1);
  return ncclSuccess;
}
ncclResult_t ncclMemFree(void* memory) {
  std::free(memory);
  count(-1);
  return ncclSuccess;
}
ncclResult_t ncclCommRegister(const ncclComm_t, void* memory, size_t bytes, void** handle) {
  if (fate_of("ncclCommRegister") != Fate::succeed) return ncclSystemError;
  log_call("register " + std::to_string(bytes));
  *handle = memory;
  count(1);
  return ncclSuccess;
}
ncclResult_t ncclCommDeregister(const ncclComm_t, void*) {
  count(-1);
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* send, void* recv, size_t n, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  const bool rounded = type == ncclBfloat16;
  if ((type != ncclFloat && !rounded) || op != ncclSum) return ncclInvalidArgument;
  return start("ncclAllReduce", comm, stream, [=] {
    log_call("allreduce " + std::to_string(n) + (rounded ? " bf16" : ""));
    if (rounded)
      sum(comm, static_cast<const bf16*>(send), static_cast<bf16*>(recv), n);
    else
      sum(comm, static_cast<const float*>(send), static_cast<float*>(recv), n);
  });
}

ncclResult_t ncclAllGather(const void* send, void* recv, size_t n, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  if (type != ncclInt8) return ncclInvalidArgument;
  return start("ncclAllGather", comm, stream, [=] {
    log_call("all_gather " + std::to_string(n));
    const auto* from = static_cast<const std::byte*>(send);
    auto* to = static_cast<std::byte*>(recv);
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
