// SPDX-License-Identifier: Apache-2.0
// The communicator over MPI. MPI_THREAD_MULTIPLE: the communication thread reduces gradients on one MPI
// communicator while the caller's thread reduces batch-norm statistics on another.
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "kernels/core/error.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/host_group.h"
#include "runtime/comm/mpi_world.h"
#include "runtime/comm/tree_sum.h"
#include "runtime/telemetry/trace.h"

namespace lockstep {
namespace {

// LOCKSTEP_RANKS_PER_HOST: so many consecutive ranks are taken for those of one host; 1: all go over MPI. For
// tests, and to see what sharing memory brings.
int ranks_per_host() {
  const char* text = std::getenv("LOCKSTEP_RANKS_PER_HOST");
  if (!text) return 0;
  char* end = nullptr;
  const long n = std::strtol(text, &end, 10);
  if (end == text || *end || n < 1 || n > INT_MAX)
    throw Error(Exit::config, "E_RANKS_PER_HOST",
                fmt::format("LOCKSTEP_RANKS_PER_HOST is '{}', not a number from 1 on", text));
  return static_cast<int>(n);
}

template <class T>
void combine(const T* from, std::span<T> to, bool first, Reduce op) {
  for (size_t i = 0; i < to.size(); ++i)
    to[i] = first               ? from[i]
            : op == Reduce::sum ? to[i] + from[i]
            : op == Reduce::min ? std::min(to[i], from[i])
                                : std::max(to[i], from[i]);
}

MPI_Op op_of(Reduce r) { return r == Reduce::sum ? MPI_SUM : r == Reduce::min ? MPI_MIN : MPI_MAX; }

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(std::shared_ptr<MpiWorld> world, MPI_Comm comm)
      : world_(std::move(world)), comm_(comm), tree_(*world_, comm_), number_(world_->next_communicator()) {
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
  }
  ~MpiCommunicator() override {
    if (thread_.joinable()) {
      {
        std::lock_guard lock(mutex_);
        closing_ = true;
      }
      started_.notify_all();
      thread_.join();
    }
    const auto guard = waiting("leaving the other ranks");
    host_.reset();
    MPI_Comm_free(&comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void allreduce(std::span<float> d, Reduce op) override { reduce(d, MPI_FLOAT, op); }
  void allreduce(std::span<double> d, Reduce op) override { reduce(d, MPI_DOUBLE, op); }
  void allreduce(std::span<int64_t> d, Reduce op) override { reduce(d, MPI_INT64_T, op); }

  void all_gather(std::span<const std::byte> send, std::span<std::byte> recv) override {
    LOCKSTEP_ASSERT(recv.size() == send.size() * static_cast<size_t>(size_) &&
                    send.size() < (size_t{1} << 31));
    const auto guard = waiting("all_gather");
    if (HostGroup* host = host_group(); host && host->passes(send.size()))
      return host->all_gather(send, recv.data());
    const int n = static_cast<int>(send.size());
    world_->check(MPI_Allgather(send.data(), n, MPI_BYTE, recv.data(), n, MPI_BYTE, comm_), "all_gather");
  }
  void broadcast(std::span<std::byte> data, int root) override {
    const auto guard = waiting("broadcast");
    for (size_t at = 0; at < data.size(); at += static_cast<size_t>(kMpiChunk)) {
      const auto n = static_cast<int>(std::min(data.size() - at, static_cast<size_t>(kMpiChunk)));
      world_->check(MPI_Bcast(data.data() + at, n, MPI_BYTE, root, comm_), "broadcast");
    }
  }
  void barrier() override {
    const auto guard = waiting("barrier");
    world_->check(MPI_Barrier(comm_), "barrier");
  }
  AlignedBuffer allocate(int64_t bytes) override {
    const auto guard = waiting("sharing memory with the other ranks");
    if (HostGroup* host = host_group())
      if (AlignedBuffer shared = host->allocate(bytes); shared.data()) return shared;
    return AlignedBuffer(bytes);
  }
  std::unique_ptr<Communicator> duplicate(const std::string&) override {
    const auto guard = waiting("making a communicator");
    return std::make_unique<MpiCommunicator>(world_, world_->duplicate(comm_));
  }
  void leave(const Error& error) override { world_->leave(error); }

  // Tickets wait in a ring until somebody takes the next one: the communication thread, while the caller
  // computes, or the caller itself in wait(), which spares a change of threads where there is nothing left to
  // overlap with.
  Ticket start_allreduce(std::span<float> data, const char* name) override {
    std::unique_lock lock(mutex_);
    if (!thread_.joinable()) thread_ = std::thread([this] { serve(); });
    LOCKSTEP_ASSERT(issued_ - done_ < kRing, "more than {} buckets in flight", kRing);
    ring_[static_cast<size_t>(issued_ % kRing)] = {data, name};
    const Ticket t = issued_++;
    queued_ += static_cast<int64_t>(data.size_bytes());
    const bool wake = queued_ >= kWorthWaking || !world_->one_host();
    lock.unlock();
    if (wake) started_.notify_one();
    return t;
  }
  void wait(Ticket ticket) override {
    const int64_t start = Trace::now_ns();
    std::unique_lock lock(mutex_);
    while (done_ <= ticket) {
      if (!busy_)
        run_next(lock);
      else
        finished_.wait(lock);
    }
    exposed_ns_ += Trace::now_ns() - start;
  }
  double take_exposed_seconds() override {
    std::lock_guard lock(mutex_);
    const double s = static_cast<double>(exposed_ns_) * 1e-9;
    exposed_ns_ = 0;
    return s;
  }

  void set_trace(Trace* trace) override {
    std::lock_guard lock(mutex_);
    trace_ = trace;
  }

 private:
  inline static const Trace::Work kBucket{"allreduce of a bucket", "communication", "", 0, 0};
  static constexpr int64_t kRing = 1024;
  // Waking the communication thread costs 10 to 25 us of a busy core, as much as reducing 100 KB between
  // processes of one host. Less than this stays queued until more comes or wait() does it. Across hosts there
  // is always something to overlap with.
  static constexpr int64_t kWorthWaking = 256 << 10;

  MpiWorld::Guard waiting(const char* what) const { return {*world_, number_, what}; }

  // Made when first needed; by all ranks, as all calls are.
  HostGroup* host_group() {
    if (!asked_for_host_) host_ = HostGroup::create(*world_, comm_, ranks_per_host());
    asked_for_host_ = true;
    return host_.get();
  }

  template <class T>
  void reduce(std::span<T> data, MPI_Datatype type, Reduce op) {
    const auto guard = waiting("allreduce");
    if (HostGroup* host = host_group(); host && host->passes(data.size_bytes())) {
      const auto& from = host->exchange(data.data(), data.size_bytes());
      for (size_t r = 0; r < from.size(); ++r) combine(reinterpret_cast<const T*>(from[r]), data, r == 0, op);
      return;
    }
    world_->allreduce(comm_, data.data(), static_cast<int64_t>(data.size()), type, sizeof(T), op_of(op));
  }

  // Runs the oldest ticket with the lock released; whoever does it holds busy_.
  void run_next(std::unique_lock<std::mutex>& lock) {
    busy_ = true;
    const auto [data, name] = ring_[static_cast<size_t>(done_ % kRing)];
    queued_ -= static_cast<int64_t>(data.size_bytes());
    lock.unlock();
    const int64_t begin = Trace::now_ns();
    {
      const auto guard = waiting(name);
      if (!host_ || !host_->allreduce(data)) tree_.run(data);
    }
    if (trace_ && trace_->recording())
      trace_->add(Trace::Lane::communication, kBucket, begin, Trace::now_ns(),
                  static_cast<int64_t>(data.size_bytes()));
    lock.lock();
    busy_ = false;
    ++done_;
    finished_.notify_all();
  }

  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      started_.wait(lock, [&] { return closing_ || (!busy_ && done_ < issued_); });
      if (closing_) return;
      run_next(lock);
    }
  }

  std::shared_ptr<MpiWorld> world_;
  MPI_Comm comm_;
  TreeSum tree_;
  std::unique_ptr<HostGroup> host_;
  bool asked_for_host_ = false;
  const int number_;
  int rank_ = 0, size_ = 1;

  std::mutex mutex_;
  std::condition_variable started_, finished_;
  struct Sum {
    std::span<float> data;
    const char* name;
  };
  std::array<Sum, kRing> ring_;
  Ticket issued_ = 0, done_ = 0;
  int64_t queued_ = 0;  // bytes of tickets that nobody has taken
  bool busy_ = false, closing_ = false;
  int64_t exposed_ns_ = 0;
  std::thread thread_;
  Trace* trace_ = nullptr;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(CommOptions options) {
  auto world = std::make_shared<MpiWorld>(std::move(options));
  const MPI_Comm copy = world->duplicate(MPI_COMM_WORLD);
  return std::make_unique<MpiCommunicator>(std::move(world), copy);
}

}  // namespace lockstep
