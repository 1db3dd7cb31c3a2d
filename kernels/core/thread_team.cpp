// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/thread_team.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdint>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/core/contention.h"
#include "kernels/core/notice.h"

namespace lockstep {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kCacheLine = 64;
constexpr std::chrono::nanoseconds kAlone = std::chrono::milliseconds(5),
                                   kAmongOthers = std::chrono::microseconds(50);

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// A number that threads wait to see changed. Whoever changes it wakes the one that sleeps; no change is missed: `sleeps` and
// `value` are read and written in one order for all.
class alignas(kCacheLine) Word {
 public:
  uint32_t get() const { return value_.load(std::memory_order_acquire); }
  void set(uint32_t value) { value_.store(value); }
  void add(uint32_t change) {
    value_.fetch_add(change);
    wake();
  }
  // The number before.
  uint32_t take_one() { return value_.fetch_sub(1); }
  void wake() {
    if (sleeps_.load()) ::syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
  }
  // Until done(value): spins for `patience`, which may change meanwhile, then sleeps.
  template <class Done>
  void wait(const std::atomic<int64_t>& patience, Done&& done) {
    constexpr int kLooks = 64;  // between looks at the clock, some microseconds
    Clock::time_point start{};
    for (;;) {
      for (int i = 0; i < kLooks; ++i) {
        if (done(get())) return;
        pause();
      }
      const auto now = Clock::now();
      if (start == Clock::time_point{}) start = now;
      if ((now - start).count() >= patience.load(std::memory_order_relaxed)) break;
    }
    sleeps_.store(true);
    for (uint32_t seen = value_.load(); !done(seen); seen = value_.load())
      ::syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
    sleeps_.store(false);
  }

 private:
  std::atomic<uint32_t> value_ = 0;
  std::atomic<bool> sleeps_ = false;
};

int cores() {
  cpu_set_t mask;
  return ::sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : INT_MAX;
}

thread_local int index_here = 0;
thread_local bool in_part = false;

class Team {
 public:
  Team() { contention_.watch_this_thread(); }
  ~Team() {
    part_ = nullptr;
    for (auto& m : members_) m->turn.add(1);
    for (auto& m : members_) m->thread.join();
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  void run(int threads, thread_team::Part part, void* loop) {
    grow(threads - 1);
    const int others = std::min(threads - 1, static_cast<int>(members_.size()));
    const bool alone = !crowded_ && !contention_.seen(Clock::now());
    patience_.store((alone ? kAlone : kAmongOthers).count(), std::memory_order_relaxed);
    part_ = part, loop_ = loop, count_ = others + 1;
    at_work_.set(static_cast<uint32_t>(others));
    for (int i = 0; i < others; ++i) members_[static_cast<size_t>(i)]->turn.add(1);
    in_part = true;
    part(loop, 0, count_);
    in_part = false;
    at_work_.wait(patience_, [](uint32_t n) { return n == 0; });
  }
  void sleep() { patience_.store(0, std::memory_order_relaxed); }

 private:
  struct Member {
    Word turn;  // one more: there is a part to do
    std::thread thread;
  };

  void grow(int most) {
    while (static_cast<int>(members_.size()) < most && !full_) {
      auto m = std::make_unique<Member>();
      try {
        m->thread =
            std::thread([this, &m = *m, index = static_cast<int>(members_.size()) + 1] { serve(m, index); });
      } catch (const std::system_error& e) {
        full_ = true;
        notice_once(std::to_string(members_.size() + 1) + " threads compute, where " +
                    std::to_string(most + 1) + " were to: the system starts no more: " + e.what());
        return;
      }
      members_.push_back(std::move(m));
      crowded_ = static_cast<int>(members_.size()) + 1 > cores();
    }
  }
  void serve(Member& m, int index) {
    ::pthread_setname_np(::pthread_self(), "compute");
    index_here = index, in_part = true;
    contention_.watch_this_thread();
    for (uint32_t done = 0;; ++done) {
      m.turn.wait(patience_, [&](uint32_t turn) { return turn != done; });
      if (part_ == nullptr) return;
      part_(loop_, index, count_);
      if (at_work_.take_one() == 1) at_work_.wake();
    }
  }

  std::vector<std::unique_ptr<Member>> members_;
  bool full_ = false, crowded_ = false;  // the system starts no more; there are more than cores
  Contention contention_;
  // The loop under way: written before the members' turns.
  thread_team::Part part_ = nullptr;
  void* loop_ = nullptr;
  int count_ = 0;
  std::atomic<int64_t> patience_ = kAlone.count();  // nanoseconds
  Word at_work_;                                    // members that have not done their part
};

thread_local std::unique_ptr<Team> team;

// A process that forks has its threads alone: the child starts others.
const int kForked = ::pthread_atfork(nullptr, nullptr, [] { (void)team.release(); });

}  // namespace

void thread_team::run(int threads, Part part, void* loop) {
  if (threads <= 1 || in_part) {
    const int index = std::exchange(index_here, 0);
    part(loop, 0, 1);
    index_here = index;
    return;
  }
  if (!team) team = std::make_unique<Team>();
  team->run(threads, part, loop);
}

int thread_index() { return index_here; }

void let_threads_sleep() {
  if (team) team->sleep();
}

}  // namespace lockstep
