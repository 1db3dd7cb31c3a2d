// SPDX-License-Identifier: Apache-2.0
// The threads of loops: what each does, and that those that wait leave the cores to others.
#include "kernels/core/thread_team.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <fstream>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "kernels/core/contention.h"
#include "kernels/core/parallel.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::thread_team_test {
namespace {

using namespace std::chrono_literals;

double cpu_seconds() {
  timespec t;
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

TEST(ThreadTeam, DoesEachPartOnce) {
  for (int round = 0; round < 2000; ++round) {
    const int threads = 1 + round % 7;
    std::vector<int> done(static_cast<size_t>(threads));
    std::thread::id first;
    on_threads(threads, [&](int index, int count) {
      EXPECT_EQ(count, threads);
      EXPECT_EQ(thread_index(), index);
      ++done[static_cast<size_t>(index)];
      if (index == 0) first = std::this_thread::get_id();
    });
    EXPECT_EQ(done, std::vector<int>(static_cast<size_t>(threads), 1));
    EXPECT_EQ(first, std::this_thread::get_id());
    EXPECT_EQ(thread_index(), 0);
  }
}

// Parts that wait for each other would stand still for ever one after the other.
TEST(ThreadTeam, PartsRunAtTheSameTime) {
  std::atomic<int> here = 0;
  on_threads(4, [&](int, int) {
    for (++here; here < 4;) std::this_thread::yield();
  });
  EXPECT_EQ(here, 4);
}

TEST(ThreadTeam, ALoopWithinAPartIsThatThreadsOwn) {
  std::atomic<int> inner = 0;
  on_threads(3, [&](int index, int) {
    const auto self = std::this_thread::get_id();
    on_threads(3, [&](int i, int count) {
      EXPECT_EQ(i, 0);
      EXPECT_EQ(count, 1);
      EXPECT_EQ(thread_index(), 0);
      EXPECT_EQ(self, std::this_thread::get_id());
      ++inner;
    });
    EXPECT_EQ(thread_index(), index);
  });
  EXPECT_EQ(inner, 3);
}

// A loop of one part keeps nobody from the threads.
TEST(ThreadTeam, ALoopWithinALoopOfOnePartHasThemAll) {
  int count = 0;
  on_threads(1, [&](int, int) {
    on_threads(3, [&](int index, int n) {
      if (index == 2) count = n;
    });
  });
  EXPECT_EQ(count, 3);
}

TEST(ThreadTeam, EachOwnerHasItsOwn) {
  std::vector<std::jthread> owners;
  std::vector<int64_t> sums(4);
  for (size_t o = 0; o < sums.size(); ++o)
    owners.emplace_back([&, o] {
      for (int round = 0; round < 300; ++round) {
        std::atomic<int64_t> sum = 0;
        parallel_ranges(1000, 3, 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) sum += i;
        });
        sums[o] += sum;
      }
    });
  owners.clear();
  EXPECT_EQ(sums, std::vector<int64_t>(4, 300 * 499500));
}

// Between loops: 5 ms for each of three threads at most, and nothing where another library's threads are to have the cores.
TEST(ThreadTeam, WhoeverWaitsLongSleeps) {
  for (const bool told : {false, true}) {
    std::atomic<int> here = 0;
    on_threads(4, [&](int, int) { ++here; });
    if (told) let_threads_sleep();
    const double before = cpu_seconds();
    std::this_thread::sleep_for(1s);
    EXPECT_LT(cpu_seconds() - before, told ? 0.02 : 0.1);
    on_threads(4, [&](int, int) { ++here; });  // and is there again
    EXPECT_EQ(here, 8);
  }
}

// A loop waits for its slowest part asleep, too.
TEST(ThreadTeam, WhoeverIsDoneSleeps) {
  double spent = 0;
  on_threads(4, [&](int index, int) {
    if (index != 3) return;
    const double before = cpu_seconds();
    std::this_thread::sleep_for(1s);
    spent = cpu_seconds() - before;
  });
  EXPECT_LT(spent, 0.1);
}

TEST(ThreadTeam, AForkedProcessHasItsOwn) {
  on_threads(3, [](int, int) {});
  const auto forked = [] {
    std::atomic<int> here = 0;
    on_threads(3, [&](int, int) { ++here; });
    std::_Exit(here);
  };
  EXPECT_EXIT(forked(), ::testing::ExitedWithCode(3), "");
}

#ifndef LOCKSTEP_SANITIZED
// One that cannot get threads goes on with those that it has.
TEST(ThreadTeam, GoesOnWithThoseThatItHas) {
  const auto limited = [] {
    const rlimit none{1, 1};  // no address space is left for the stack of a thread
    ::setrlimit(RLIMIT_AS, &none);
    int64_t sum = 0;
    parallel_for(100, 4, [&](int64_t i) { sum += i; });
    std::_Exit(sum == 4950 ? 0 : 1);
  };
  EXPECT_EXIT(limited(), ::testing::ExitedWithCode(0), "");
}
#endif

// A thread's schedstat as Linux writes it: time on a core, time that it waited for one, turns.
class ContentionTest : public ::testing::Test {
 protected:
  void waited(std::chrono::nanoseconds more) {
    total_ += more;
    std::ofstream(folder_.file("schedstat")) << 1000 << ' ' << total_.count() << " 7\n";
  }
  bool after(std::chrono::milliseconds time, std::chrono::nanoseconds waiting) {
    waited(waiting);
    now_ += time;
    return contention_.seen(now_);
  }

  testing::TestFolder folder_;
  Contention contention_;
  std::chrono::nanoseconds total_ = 123456789ns;
  Contention::Clock::time_point now_ = Contention::Clock::now();
};

TEST_F(ContentionTest, IsSeenFromAQuarterOfTheTime) {
  waited(0ns);
  contention_.watch(folder_.file("schedstat"));
  EXPECT_FALSE(contention_.seen(now_));                              // whatever was before
  for (int i = 0; i < 50; ++i) EXPECT_FALSE(after(20ms, 4ms)) << i;  // a fifth
  EXPECT_TRUE(after(20ms, 10ms));
  // It holds for a second.
  for (int i = 0; i < 49; ++i) EXPECT_TRUE(after(20ms, 0ms)) << i;
  EXPECT_FALSE(after(20ms, 0ms));
  for (int i = 0; i < 20; ++i) after(20ms, 7ms);
  EXPECT_TRUE(after(20ms, 7ms));
}

TEST_F(ContentionTest, SumsUpNoLongPause) {
  waited(0ns);
  contention_.watch(folder_.file("schedstat"));
  EXPECT_FALSE(contention_.seen(now_));
  EXPECT_FALSE(after(60s, 200ms));
  EXPECT_FALSE(after(20ms, 1ms));
}

TEST_F(ContentionTest, IsNeverSeenWhereTheSystemDoesNotTell) {
  contention_.watch(folder_.file("nothing"));
  std::ofstream(folder_.file("schedstat")) << "?\n";
  contention_.watch(folder_.file("schedstat"));
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(contention_.seen(now_ += 20ms));
}

// This system tells, and of the thread that asks: two on one core wait half of the time each.
TEST(Contention, IsSeenOnASharedCore) {
  std::atomic<bool> over = false;
  bool seen = false;
  const auto on_first_core = [] {
    cpu_set_t mine, one;
    CPU_ZERO(&one);
    ::sched_getaffinity(0, sizeof mine, &mine);
    for (int c = 0; c < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++c)
      if (CPU_ISSET(c, &mine)) CPU_SET(c, &one);
    ::sched_setaffinity(0, sizeof one, &one);
  };
  std::jthread other([&] {
    on_first_core();
    while (!over) continue;
  });
  std::jthread watched([&] {
    on_first_core();
    Contention contention;
    contention.watch_this_thread();
    const auto end = Contention::Clock::now() + 60s;
    for (auto now = end - 60s; !seen && now < end; now = Contention::Clock::now())
      seen = contention.seen(now);
    over = true;
  });
  watched.join();
  EXPECT_TRUE(seen);
}

}  // namespace
}  // namespace lockstep::thread_team_test
