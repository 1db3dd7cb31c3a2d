// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/host_group.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <thread>

#include "kernels/simd/sum.h"

namespace lockstep {
namespace {

constexpr int64_t kLine = 64, kPage = 4096;

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

void futex_wait(std::atomic<uint32_t>& word, uint32_t seen) {
  ::syscall(SYS_futex, &word, FUTEX_WAIT, seen, nullptr, nullptr, 0);
}
void futex_wake_all(std::atomic<uint32_t>& word) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Whether the ranks of `host` are a node of the binary tree over those of `comm`, of which there are 2^k, and
// every host has as many. Collective over both.
bool is_tree_node(MPI_Comm comm, MPI_Comm host) {
  int rank = 0, count = 1;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(host, &count);
  int first = rank, last = rank, fewest = count;
  MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, host);
  MPI_Allreduce(MPI_IN_PLACE, &last, 1, MPI_INT, MPI_MAX, host);
  MPI_Allreduce(MPI_IN_PLACE, &fewest, 1, MPI_INT, MPI_MIN, comm);
  return std::has_single_bit(static_cast<unsigned>(count)) && last - first + 1 == count &&
         first % count == 0 && fewest == count;
}

}  // namespace

// How many meetings a rank has come to, and how many others sleep until that changes.
struct alignas(kLine) HostGroup::Flag {
  std::atomic<uint32_t> came;
  std::atomic<uint32_t> sleepers;
};
static_assert(std::atomic<uint32_t>::is_always_lock_free, "flags are shared between processes");

std::unique_ptr<HostGroup> HostGroup::create(MpiWorld& world, MPI_Comm comm, int ranks_per_host) {
  int rank = 0, size = 1;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  MPI_Comm host = MPI_COMM_NULL, leaders = MPI_COMM_NULL;
  if (ranks_per_host > 0)
    world.check(MPI_Comm_split(comm, rank / ranks_per_host, rank, &host), "split");
  else
    world.check(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &host), "split");
  MPI_Comm_set_errhandler(host, MPI_ERRORS_RETURN);
  int local = 0;
  MPI_Comm_rank(host, &local);
  world.check(MPI_Comm_split(comm, local == 0 ? 0 : MPI_UNDEFINED, rank, &leaders), "split");
  const bool any_order = !world.fixed_order() || !std::has_single_bit(static_cast<unsigned>(size));
  const bool in_order = any_order || is_tree_node(comm, host);
  std::unique_ptr<HostGroup> group(new HostGroup(world, host, leaders));
  if (!all_agree(comm, in_order)) return nullptr;
  // Worth it as soon as one host has several ranks.
  const bool alone = all_agree(comm, group->size_ == 1);
  if (alone || !all_agree(comm, group->control_ != nullptr)) return nullptr;
  return group;
}

HostGroup::HostGroup(MpiWorld& world, MPI_Comm host, MPI_Comm leaders)
    : world_(world), host_(host), leaders_(leaders) {
  MPI_Comm_rank(host_, &rank_);
  MPI_Comm_size(host_, &size_);
  if (leaders_ != MPI_COMM_NULL) {
    MPI_Comm_set_errhandler(leaders_, MPI_ERRORS_RETURN);
    MPI_Comm_size(leaders_, &hosts_);
    over_hosts_.emplace(world_, leaders_);
  }
  MPI_Bcast(&hosts_, 1, MPI_INT, 0, host_);
  // With a core for each rank a meeting takes less than falling asleep and waking up would.
  cpu_set_t cores;
  CPU_ZERO(&cores);
  ::sched_getaffinity(0, sizeof cores, &cores);
  MPI_Allreduce(MPI_IN_PLACE, &cores, sizeof cores, MPI_BYTE, MPI_BOR, host_);
  spins_ = CPU_COUNT(&cores) >= size_ ? 2000 : 20;
  const auto flags = static_cast<int64_t>(sizeof(Flag)) * size_;
  control_ = SharedRegion::create(host_, round_up(flags, kPage) + 2 * size_ * static_cast<int64_t>(kSlot));
  received_.resize(static_cast<size_t>(size_));
}

HostGroup::~HostGroup() {
  MPI_Comm_free(&host_);
  if (leaders_ != MPI_COMM_NULL) MPI_Comm_free(&leaders_);
}

HostGroup::Flag& HostGroup::flag(int rank) const { return reinterpret_cast<Flag*>(control_->data())[rank]; }

std::byte* HostGroup::slot(int rank, uint32_t parity) const {
  const auto flags = static_cast<int64_t>(sizeof(Flag)) * size_;
  return control_->data() + round_up(flags, kPage) + (parity * size_ + rank) * static_cast<int64_t>(kSlot);
}

void HostGroup::meet() {
  ++meetings_;
  Flag& mine = flag(rank_);
  mine.came.store(
      meetings_);  // with the loads of `sleepers` and `came`: one order for all, so that no wake-up is lost
  if (mine.sleepers.load() > 0) futex_wake_all(mine.came);
  for (int r = 0; r < size_; ++r) {
    Flag& other = flag(r);
    // Counters wrap; two ranks are at most one meeting apart.
    const auto behind = [&](uint32_t came) { return static_cast<int32_t>(came - meetings_) < 0; };
    for (int i = 0; i < spins_ && behind(other.came.load(std::memory_order_acquire)); ++i) pause();
    for (uint32_t came = other.came.load(); behind(came); came = other.came.load()) {
      other.sleepers.fetch_add(1);
      if (other.came.load() == came) futex_wait(other.came, came);
      other.sleepers.fetch_sub(1);
    }
  }
}

AlignedBuffer HostGroup::allocate(int64_t bytes) {
  const int64_t stride =
      round_up(std::max<int64_t>(bytes, 1), kPage);  // from a rank's part to the next one's
  Arena a;
  a.floats = bytes / static_cast<int64_t>(sizeof(float));
  a.region = SharedRegion::create(host_, stride * size_);
  if (!a.region) return {};
  for (int r = 0; r < size_; ++r) a.parts.push_back(reinterpret_cast<float*>(a.region->data() + r * stride));
  float* mine = a.parts[static_cast<size_t>(rank_)];
  std::memset(mine, 0, static_cast<size_t>(stride));  // touched first by its own rank: memory of its own node
  arenas_.push_back(a);
  return AlignedBuffer(a.region, mine, bytes);
}

bool HostGroup::allreduce(std::span<float> data) {
  const auto arena = std::find_if(arenas_.begin(), arenas_.end(), [&](const Arena& a) {
    const float* begin = a.parts[static_cast<size_t>(rank_)];
    return data.data() >= begin && data.data() + data.size() <= begin + a.floats;
  });
  if (arena == arenas_.end()) return false;
  const int64_t offset = data.data() - arena->parts[static_cast<size_t>(rank_)];
  const auto n = static_cast<int64_t>(data.size());
  // Slices end at cache lines of the arena, so that no two ranks write to one.
  constexpr int64_t kFloats = kLine / static_cast<int64_t>(sizeof(float));
  const auto cut = [&](int64_t r) {
    return r == 0       ? offset
           : r == size_ ? offset + n
                        : std::clamp((offset + n * r / size_) / kFloats * kFloats, offset, offset + n);
  };
  meet();
  sum_into_all(arena->parts.data(), size_, cut(rank_), cut(rank_ + 1));
  meet();
  if (hosts_ == 1) return true;
  if (over_hosts_) over_hosts_->run(data);
  meet();
  if (rank_ != 0) std::copy_n(arena->parts[0] + offset, n, data.data());
  meet();  // nobody writes to the leader's part before all have read it
  return true;
}

const std::vector<const std::byte*>& HostGroup::exchange(const void* mine, size_t bytes) {
  // A rank that is here for the next message has read this one; so two slots for each are enough.
  const uint32_t parity = (meetings_ + 1) & 1;
  if (bytes > 0) std::memcpy(slot(rank_, parity), mine, bytes);
  meet();
  for (int r = 0; r < size_; ++r) received_[static_cast<size_t>(r)] = slot(r, parity);
  return received_;
}

void HostGroup::all_gather(std::span<const std::byte> send, std::byte* recv) {
  const auto& from = exchange(send.data(), send.size());
  for (size_t r = 0; r < from.size(); ++r)
    if (!send.empty()) std::memcpy(recv + r * send.size(), from[r], send.size());
}

}  // namespace lockstep
