// The communicator over MPI. MPI_THREAD_MULTIPLE: the communication thread reduces gradients on one MPI
// communicator while the caller's thread reduces batch-norm statistics on another.
#include <mpi.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "kernels/core/error.h"
#include "runtime/comm/communicator.h"
#include "runtime/telemetry/trace.h"

namespace lockstep {
namespace {

using Clock = std::chrono::steady_clock;

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
}

bool mpi_was_started = false;

// One per process: MPI itself, and the watchdog over all communicators' calls.
class MpiWorld {
 public:
  explicit MpiWorld(CommOptions options) : options_(std::move(options)) {
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
  ~MpiWorld() {
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

  bool one_host() const { return one_host_; }

  struct Slot {
    std::atomic<int64_t> since{0};  // ns; 0: idle
    std::atomic<const char*> what{""};
  };
  // A call in flight, seen by the watchdog. Slots are few: at most one call per thread.
  class Guard {
   public:
    Guard(MpiWorld& world, const char* what) : world_(world) {
      for (auto& s : world_.slots_) {
        int64_t idle = 0;
        if (!s.since.compare_exchange_strong(idle, now_ns())) continue;
        slot_ = &s;
        s.what = what;
        return;
      }
    }
    ~Guard() {
      if (slot_) slot_->since = 0;
    }
    Guard(const Guard&) = delete;

   private:
    MpiWorld& world_;
    Slot* slot_ = nullptr;
  };

  void check(int code, const char* what) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    lost(fmt::format("{} failed: {}", what, text));
  }

  MPI_Comm duplicate(MPI_Comm comm) {
    Guard guard(*this, "duplicate");
    MPI_Comm copy = MPI_COMM_NULL;
    check(MPI_Comm_dup(comm, &copy), "duplicate");
    return copy;
  }

  // Never returns: what other ranks hold is unknown, so nothing more can be done here but say so.
  [[noreturn]] void lost(const std::string& what) {
    static std::atomic<bool> told{false};
    if (told.exchange(true))
      for (;;) ::pause();
    if (options_.on_peer_lost) options_.on_peer_lost(what);
    ::_exit(static_cast<int>(Exit::try_again));
  }

 private:
  void watch() {
    std::unique_lock lock(mutex_);
    const auto deadline = static_cast<int64_t>(options_.deadline_seconds * 1e9);
    while (!wake_.wait_for(lock, std::chrono::milliseconds(200), [&] { return done_; }))
      for (auto& s : slots_)
        if (const int64_t since = s.since; since && now_ns() - since > deadline)
          lost(fmt::format("{} has waited for its peers for more than {} s", s.what.load(),
                           options_.deadline_seconds));
  }

  CommOptions options_;
  bool one_host_ = true;
  std::array<Slot, 16> slots_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  std::thread watchdog_;
};

constexpr int64_t kChunk = int64_t{1} << 28;  // elements per call: MPI counts are ints

MPI_Op op_of(Reduce r) { return r == Reduce::sum ? MPI_SUM : r == Reduce::min ? MPI_MIN : MPI_MAX; }

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(std::shared_ptr<MpiWorld> world, MPI_Comm comm, std::string name)
      : world_(std::move(world)), comm_(comm), name_(std::move(name)) {
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
    MPI_Comm_free(&comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void allreduce(std::span<float> d, Reduce op) override {
    reduce(d.data(), static_cast<int64_t>(d.size()), MPI_FLOAT, 4, op);
  }
  void allreduce(std::span<double> d, Reduce op) override {
    reduce(d.data(), static_cast<int64_t>(d.size()), MPI_DOUBLE, 8, op);
  }
  void allreduce(std::span<int64_t> d, Reduce op) override {
    reduce(d.data(), static_cast<int64_t>(d.size()), MPI_INT64_T, 8, op);
  }

  void all_gather(std::span<const std::byte> send, std::span<std::byte> recv) override {
    LOCKSTEP_ASSERT(recv.size() == send.size() * static_cast<size_t>(size_) &&
                    send.size() < (size_t{1} << 31));
    MpiWorld::Guard guard(*world_, "all_gather");
    const int n = static_cast<int>(send.size());
    world_->check(MPI_Allgather(send.data(), n, MPI_BYTE, recv.data(), n, MPI_BYTE, comm_), "all_gather");
  }
  void broadcast(std::span<std::byte> data, int root) override {
    MpiWorld::Guard guard(*world_, "broadcast");
    for (size_t at = 0; at < data.size(); at += static_cast<size_t>(kChunk)) {
      const auto n = static_cast<int>(std::min(data.size() - at, static_cast<size_t>(kChunk)));
      world_->check(MPI_Bcast(data.data() + at, n, MPI_BYTE, root, comm_), "broadcast");
    }
  }
  void barrier() override {
    MpiWorld::Guard guard(*world_, "barrier");
    world_->check(MPI_Barrier(comm_), "barrier");
  }
  std::unique_ptr<Communicator> duplicate(const std::string& name) override {
    return std::make_unique<MpiCommunicator>(world_, world_->duplicate(comm_), name);
  }

  // Tickets wait in a ring until somebody takes the next one: the communication thread, while the caller
  // computes, or the caller itself in wait(), which spares a change of threads where there is nothing left to
  // overlap with.
  Ticket start_allreduce(std::span<float> data) override {
    std::unique_lock lock(mutex_);
    if (!thread_.joinable()) thread_ = std::thread([this] { serve(); });
    LOCKSTEP_ASSERT(issued_ - done_ < kRing, "more than {} buckets in flight", kRing);
    ring_[static_cast<size_t>(issued_ % kRing)] = data;
    const Ticket t = issued_++;
    queued_ += static_cast<int64_t>(data.size_bytes());
    const bool wake = queued_ >= kWorthWaking || !world_->one_host();
    lock.unlock();
    if (wake) started_.notify_one();
    return t;
  }
  void wait(Ticket ticket) override {
    const int64_t start = now_ns();
    std::unique_lock lock(mutex_);
    while (done_ <= ticket) {
      if (!busy_)
        run_next(lock);
      else
        finished_.wait(lock);
    }
    exposed_ns_ += now_ns() - start;
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

  void reduce(void* data, int64_t count, MPI_Datatype type, int64_t size, Reduce op) {
    MpiWorld::Guard guard(*world_, "allreduce");
    for (int64_t at = 0; at < count; at += kChunk) {
      const auto n = static_cast<int>(std::min(kChunk, count - at));
      world_->check(
          MPI_Allreduce(MPI_IN_PLACE, static_cast<std::byte*>(data) + at * size, n, type, op_of(op), comm_),
          "allreduce");
    }
  }

  // Runs the oldest ticket with the lock released; whoever does it holds busy_.
  void run_next(std::unique_lock<std::mutex>& lock) {
    busy_ = true;
    const auto data = ring_[static_cast<size_t>(done_ % kRing)];
    queued_ -= static_cast<int64_t>(data.size_bytes());
    lock.unlock();
    const int64_t begin = Trace::now_ns();
    reduce(data.data(), static_cast<int64_t>(data.size()), MPI_FLOAT, 4, Reduce::sum);
    if (trace_ && trace_->recording()) 
      trace_->add(Trace::Lane::communication, kBucket, begin, Trace::now_ns(), static_cast<int64_t>(data.size_bytes()));
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
  std::string name_;
  int rank_ = 0, size_ = 1;

  std::mutex mutex_;
  std::condition_variable started_, finished_;
  std::array<std::span<float>, kRing> ring_;
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
  return std::make_unique<MpiCommunicator>(std::move(world), copy, "gradients");
}

}  // namespace lockstep

#ifdef __SANITIZE_ADDRESS__
// Open MPI leaves memory behind that its plugins allocated, and has unloaded them when leaks are looked for,
// so that no suppression can name them.
extern "C" int __lsan_is_turned_off() { return lockstep::mpi_was_started; }
#endif
