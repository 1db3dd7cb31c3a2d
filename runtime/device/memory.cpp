// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/memory.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>

#include "kernels/core/error.h"
#include "runtime/device/cgroup.h"

namespace lockstep {
namespace {
std::atomic<int64_t> held{0}, most{0};

constexpr int64_t kMemoryAlign = 64, kMemoryPage = 4096;
// From here on pages come zeroed from the system, when they are first written to: a model's arrays and the arena of its plans
// are seldom used as a whole.
constexpr int64_t kMemoryMapped = int64_t{1} << 20;
int64_t rounded(int64_t bytes) {
  const int64_t unit = bytes >= kMemoryPage ? kMemoryPage : kMemoryAlign;
  return (bytes + unit - 1) / unit * unit;
}

void count(int64_t bytes) {
  const int64_t now = held += bytes;
  int64_t seen = most;
  while (now > seen && !most.compare_exchange_weak(seen, now)) {
  }
}
}  // namespace

AlignedBuffer::AlignedBuffer(int64_t bytes) : bytes_(bytes) {
  const auto size = static_cast<size_t>(rounded(bytes < 1 ? 1 : bytes));
  if (bytes >= kMemoryMapped) {
    data_ = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED) data_ = nullptr;
  } else {
    data_ = std::aligned_alloc(static_cast<size_t>(bytes >= kMemoryPage ? kMemoryPage : kMemoryAlign), size);
  }
  if (!data_)
    throw Error(Exit::io, "E_MEMORY", fmt::format("cannot allocate {} bytes of memory", bytes))
        .hint("a smaller global_batch_size, or gradient_accumulation, needs less");
  if (bytes < kMemoryMapped) std::memset(data_, 0, size);
  count(bytes);
}

AlignedBuffer::AlignedBuffer(std::shared_ptr<void> owner, void* data, int64_t bytes)
    : data_(data), bytes_(bytes), owner_(std::move(owner)) {
  count(bytes);
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& o) noexcept
    : data_(std::exchange(o.data_, nullptr)),
      bytes_(std::exchange(o.bytes_, 0)),
      owner_(std::move(o.owner_)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& o) noexcept {
  std::swap(data_, o.data_);
  std::swap(bytes_, o.bytes_);
  std::swap(owner_, o.owner_);
  return *this;
}

AlignedBuffer::~AlignedBuffer() {
  if (!data_) return;
  if (!owner_)
    bytes_ < kMemoryMapped ? std::free(data_) : void(::munmap(data_, static_cast<size_t>(rounded(bytes_))));
  held -= bytes_;
}

int64_t usable_memory() {
  int64_t bytes = int64_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGESIZE);
  for_each_cgroup("memory", [&](const std::string& group, bool v2) {
    std::ifstream limit(group + (v2 ? "/memory.max" : "/memory.limit_in_bytes"));
    if (int64_t allowed = 0; limit >> allowed) bytes = std::min(bytes, allowed);  // "max" is no number
  });
  return bytes;
}

Error out_of_memory() {
  rusage use{};
  ::getrusage(RUSAGE_SELF, &use);
  rlimit space{};
  const bool limited = ::getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY;
  return Error(
      Exit::io, "E_MEMORY",
      fmt::format("memory ran out: this process has held {} MB; the machine lets it have {} MB{}",
                  use.ru_maxrss >> 10, usable_memory() >> 20,
                  limited ? fmt::format(", its limit of addresses is {} MB", space.rlim_cur >> 20) : ""));
}

int64_t allocated_bytes() { return held; }
int64_t peak_allocated_bytes() { return most; }

}  // namespace lockstep
