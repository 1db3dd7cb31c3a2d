// SPDX-License-Identifier: Apache-2.0
// Each test runs as one rank alone, and under mpirun in every rank (on_ranks_test.cpp starts this executable
// so). Sums are of small integers, so exact in any order: every comparison is for equality.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>

#include "runtime/comm/agree.h"
#include "runtime/comm/together.h"
#include "tests/runtime/comm/world.h"

namespace lockstep::collectives_test {
namespace {

using testing::world;

// 1023 is odd for every algorithm's halves, 300001 crosses MPI's own segment sizes and a wake-up threshold,
// and 2097153 a 4 MB bucket.
const std::vector<int64_t> kSizes = {0, 1, 2, 3, 17, 1023, 4096, 300001, 2097153};

template <class T>
std::vector<T> mine(int64_t n, int rank) {
  std::vector<T> v(static_cast<size_t>(n));
  for (size_t i = 0; i < v.size(); ++i)
    v[i] = static_cast<T>((i % 11) + static_cast<size_t>(rank) * (1 + i % 3));
  return v;
}

// Of all ranks' mine(), worked out without communicating.
template <class T>
T expected(size_t i, int ranks, Reduce op) {
  T result = static_cast<T>(i % 11);
  const auto step = static_cast<T>(1 + i % 3);
  if (op == Reduce::min) return result;
  if (op == Reduce::max) return result + static_cast<T>(ranks - 1) * step;
  const T pairs = static_cast<T>(ranks) * static_cast<T>(ranks - 1) / 2;
  return static_cast<T>(ranks) * result + step * pairs;
}

template <class T>
void check_allreduce() {
  for (int64_t n : kSizes)
    for (Reduce op : {Reduce::sum, Reduce::min, Reduce::max}) {
      auto v = mine<T>(n, world().rank());
      world().allreduce(std::span<T>(v), op);
      int64_t wrong = 0;
      for (size_t i = 0; i < v.size(); ++i) wrong += v[i] != expected<T>(i, world().size(), op);
      EXPECT_EQ(wrong, 0) << n << " elements, op " << static_cast<int>(op);
    }
}

TEST(Collectives, AllreduceFloat) { check_allreduce<float>(); }

TEST(Collectives, AllreduceDouble) { check_allreduce<double>(); }
TEST(Collectives, AllreduceInt64) { check_allreduce<int64_t>(); }

TEST(Collectives, Int64SumsBeyondFloatPrecision) {
  std::vector<int64_t> v = {(int64_t{1} << 53) + world().rank()};
  world().allreduce(std::span<int64_t>(v), Reduce::sum);
  const int64_t n = world().size();
  EXPECT_EQ(v[0], n * (int64_t{1} << 53) + n * (n - 1) / 2);
}

// Rounded sums may differ from the exact ones, but not between ranks.
TEST(Collectives, AllreduceBitsEqualOnAllRanks) {
  for (int64_t n : kSizes) {
    std::mt19937 random(static_cast<unsigned>(world().rank()) * 977 + 1);
    std::normal_distribution<float> normal;
    std::vector<float> v(static_cast<size_t>(n));
    for (auto& x : v) x = normal(random) * 1e3f;
    world().allreduce(std::span<float>(v), Reduce::sum);
    std::vector<float> all(v.size() * static_cast<size_t>(world().size()));
    world().all_gather(std::as_bytes(std::span(v)), std::as_writable_bytes(std::span(all)));
    for (int r = 0; r < world().size(); ++r)
      EXPECT_TRUE(std::equal(v.begin(), v.end(), all.begin() + r * n)) << n << " elements, rank " << r;
  }
}

// Buckets of any place and size in memory of the communicator, with what lies around them.
TEST(Collectives, BucketsOfItsOwnMemory) {
  constexpr int64_t kFloats = 300'011;
  const AlignedBuffer memory = world().allocate(kFloats * 4), other = world().allocate(64);
  ASSERT_EQ(memory.bytes(), kFloats * 4);
  float* const data = memory.as<float>();
  for (int64_t i = 0; i < kFloats; ++i) ASSERT_EQ(data[i], 0) << i;
  const std::vector<std::pair<int64_t, int64_t>> buckets = {
      {0, 1}, {1, 18}, {18, 18}, {18, 50'000}, {50'000, 50'003}, {50'003, kFloats - 1}};
  for (int round = 0; round < 20; ++round) {
    const auto v = mine<float>(kFloats, world().rank() + round);
    std::copy(v.begin(), v.end(), data);
    Communicator::Ticket last = 0;
    for (const auto& [begin, end] : buckets)
      last = world().start_allreduce({data + begin, static_cast<size_t>(end - begin)});
    if ((round + world().rank()) % 2) std::this_thread::sleep_for(std::chrono::microseconds(300));
    world().wait(last);
    int64_t wrong = 0;
    for (int64_t i = 0; i < kFloats - 1; ++i) {
      float sum = 0;
      for (int r = 0; r < world().size(); ++r) sum += static_cast<float>(i % 11 + (r + round) * (1 + i % 3));
      wrong += data[i] != sum;
    }
    EXPECT_EQ(wrong, 0) << "round " << round;
    EXPECT_EQ(data[kFloats - 1], v.back()) << "outside of all buckets";
  }
  // Rounded sums have the same bits on all ranks.
  std::mt19937 random(static_cast<unsigned>(world().rank()) * 977 + 1);
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < kFloats; ++i) data[i] = normal(random) * 1e3f;
  world().wait(world().start_allreduce({data, static_cast<size_t>(kFloats)}));
  std::vector<float> all(static_cast<size_t>(kFloats) * static_cast<size_t>(world().size()));
  world().all_gather({memory.as<std::byte>(), static_cast<size_t>(kFloats) * 4},
                     std::as_writable_bytes(std::span(all)));
  for (int r = 0; r < world().size(); ++r)
    EXPECT_TRUE(std::equal(data, data + kFloats, all.begin() + r * kFloats)) << r;
}

// Bit for bit, wherever the ranks run and wherever the data lies.
TEST(Collectives, TheSumIsTheBinaryTreeOverTheRanks) {
  const int ranks = world().size();
  if (!testing::has_fixed_order() || !std::has_single_bit(static_cast<unsigned>(ranks)))
    return;  // no promise
  constexpr int64_t kMost = 300'001;
  const AlignedBuffer memory = world().allocate(kMost * 4);
  std::vector<float> elsewhere(kMost);
  for (int64_t n : {int64_t{1}, int64_t{2}, int64_t{17}, int64_t{1023}, kMost}) {
    std::vector<std::vector<float>> all(static_cast<size_t>(ranks),
                                        std::vector<float>(static_cast<size_t>(n)));
    for (int r = 0; r < ranks; ++r) {
      std::mt19937 random(static_cast<unsigned>(r) * 977 + static_cast<unsigned>(n));
      std::normal_distribution<float> normal;
      for (float& x : all[static_cast<size_t>(r)]) x = normal(random) * 1e3f;
    }
    const std::vector<float> mine = all[static_cast<size_t>(world().rank())];
    for (size_t width = 1; width < all.size(); width *= 2)
      for (size_t r = 0; r + width < all.size(); r += 2 * width)
        for (size_t i = 0; i < all[r].size(); ++i) all[r][i] += all[r + width][i];
    for (float* data : {memory.as<float>(), elsewhere.data()}) {
      std::copy(mine.begin(), mine.end(), data);
      world().wait(world().start_allreduce({data, mine.size()}));
      EXPECT_EQ(std::memcmp(data, all[0].data(), mine.size() * 4), 0) << n;
    }
  }
}

TEST(Collectives, ItsMemoryOutlivesIt) {
  AlignedBuffer memory;
  {
    const auto comm = world().duplicate("short-lived");
    memory = comm->allocate(4096);
    memory.as<float>()[7] = 1;
    comm->wait(comm->start_allreduce({memory.as<float>(), 1024}));
  }
  EXPECT_EQ(memory.as<float>()[7], static_cast<float>(world().size()));
  memory.as<float>()[1023] = 5;
}

// Many in a row, of mixed kinds: a rank that is late reads what it should.
TEST(Collectives, SmallOnesDoNotOvertakeEachOther) {
  for (int round = 0; round < 500; ++round) {
    std::vector<int64_t> v = {round + world().rank()};
    world().allreduce(std::span<int64_t>(v), Reduce::max);
    ASSERT_EQ(v[0], round + world().size() - 1);
    std::vector<double> d(static_cast<size_t>(1 + round % 7), 1.0);
    world().allreduce(std::span<double>(d), Reduce::sum);
    ASSERT_EQ(d.back(), world().size());
    const int32_t mine = round * 8 + world().rank();
    std::vector<int32_t> all(static_cast<size_t>(world().size()));
    world().all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
    for (int r = 0; r < world().size(); ++r) ASSERT_EQ(all[static_cast<size_t>(r)], round * 8 + r);
    if (round % 100 == world().rank()) std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

TEST(Collectives, TicketsCompleteInTheirOrder) {
  for (int round = 0; round < 20; ++round) {
    std::vector<std::vector<float>> buckets;
    std::vector<Communicator::Ticket> tickets;
    for (int64_t n : {1023, 0, 70001, 1, 70000, 20000}) buckets.push_back(mine<float>(n, world().rank()));
    for (auto& b : buckets) tickets.push_back(world().start_allreduce(b));
    // Ranks dawdle differently, so that on some the communication thread reduces and on others wait() does.
    if ((round + world().rank()) % 2) std::this_thread::sleep_for(std::chrono::microseconds(300));
    for (size_t t = 0; t < tickets.size(); ++t) {
      if (t) {
        EXPECT_GT(tickets[t], tickets[t - 1]);
      }
      if (round % 3 == 0) world().wait(tickets[t]);
    }
    world().wait(tickets.back());  // implies those before
    for (size_t b = 0; b < buckets.size(); ++b) {
      int64_t wrong = 0;
      for (size_t i = 0; i < buckets[b].size(); ++i)
        wrong += buckets[b][i] != expected<float>(i, world().size(), Reduce::sum);
      EXPECT_EQ(wrong, 0) << "bucket " << b << " of round " << round;
    }
    world().wait(tickets.front());  // again: it is done, so this returns
  }
}

TEST(Collectives, ATicketBeyondABucket) {
  auto v = mine<float>((4 << 20) / 4 + 1, world().rank());
  world().wait(world().start_allreduce(v));
  int64_t wrong = 0;
  for (size_t i = 0; i < v.size(); ++i) wrong += v[i] != expected<float>(i, world().size(), Reduce::sum);
  EXPECT_EQ(wrong, 0);
}

// Seconds of a clock that all processes of a host share.
double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
std::vector<double> of_all_ranks(double mine) {
  std::vector<double> all(static_cast<size_t>(world().size()));
  world().all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
  return all;
}

TEST(Collectives, ExposedSecondsCoverTheWaitAndAreTakenOnce) {
  world().barrier();
  world().take_exposed_seconds();
  if (world().rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(500));
  std::vector<float> v(1000, 1.0f);
  const double started = now();
  const auto ticket = world().start_allreduce(v);
  const double asked = now();
  world().wait(ticket);
  const double took = now() - asked, exposed = world().take_exposed_seconds();
  // Others have waited until rank 0 started, which slept before.
  EXPECT_GE(exposed, std::min(of_all_ranks(started)[0] - asked, took) - 0.02);
  EXPECT_LE(exposed, took + 0.02);
  EXPECT_EQ(world().take_exposed_seconds(), 0);
}

TEST(Collectives, AllGather) {
  for (size_t n : {0, 1, 1023, 300001}) {
    const std::vector<std::byte> send(n, static_cast<std::byte>(world().rank() + 1));
    std::vector<std::byte> received(n * static_cast<size_t>(world().size()));
    world().all_gather(send, received);
    for (size_t i = 0; i < received.size(); ++i)
      ASSERT_EQ(received[i], static_cast<std::byte>(i / n + 1)) << i;
  }
}

TEST(Collectives, BroadcastFromEveryRoot) {
  for (int root = 0; root < world().size(); ++root)
    for (size_t n : {0, 1, 1023, 300001}) {
      std::vector<std::byte> data(n, static_cast<std::byte>(world().rank() == root ? 0x5a : 0));
      world().broadcast(data, root);
      EXPECT_EQ(std::count(data.begin(), data.end(), std::byte{0x5a}), static_cast<int64_t>(n)) << root;
    }
}

TEST(Collectives, Text) {
  for (int longest : {0, 1, 5000}) {
    // Lengths differ, and some are zero.
    auto text = [&](int rank) {
      return std::string(static_cast<size_t>(longest * rank), static_cast<char>('a' + rank));
    };
    const auto all = world().gather_text(text(world().rank()));
    ASSERT_EQ(all.size(), static_cast<size_t>(world().size()));
    for (int r = 0; r < world().size(); ++r) EXPECT_EQ(all[static_cast<size_t>(r)], text(r));
    const int root = world().size() - 1;
    EXPECT_EQ(world().broadcast_text(text(world().rank()) + "!", root), text(root) + "!");
  }
}

TEST(Collectives, BarrierWaitsForAll) {
  if (world().rank() == world().size() - 1) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const double came = now();
  world().barrier();
  const double left = now();
  for (const double other : of_all_ranks(came)) EXPECT_GE(left, other);
}

// Both communicators are in use at the same time, and neither sees the other's numbers.
TEST(Collectives, DuplicateInAnotherThread) {
  auto statistics = world().duplicate("statistics");
  EXPECT_EQ(statistics->rank(), world().rank());
  EXPECT_EQ(statistics->size(), world().size());
  int64_t wrong = 0;
  std::thread other([&] {
    for (int i = 0; i < 200; ++i) {
      std::vector<double> v(40, world().rank() + i);
      statistics->allreduce(std::span<double>(v), Reduce::sum);
      const int n = world().size(), sum = n * i + n * (n - 1) / 2;
      for (double x : v) wrong += x != sum;
    }
  });
  for (int i = 0; i < 20; ++i) {
    auto v = mine<float>(100003, world().rank());
    const auto t = world().start_allreduce(v);
    std::this_thread::yield();
    world().wait(t);
    for (size_t k = 0; k < v.size(); ++k) ASSERT_EQ(v[k], expected<float>(k, world().size(), Reduce::sum));
  }
  other.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Agreement, SilentWhereAllAgree) {
  EXPECT_NO_THROW(require_agreement(world(), {{"resolved job", "ab12"}, {"kernel table", ""}}));
}

TEST(Agreement, NamesFactValuesAndRanks) {
  const int last = world().size() - 1;
  if (last == 0) return;  // one rank cannot disagree
  try {
    require_agreement(
        world(), {{"resolved job", "same"}, {"kernel table", world().rank() == last ? "other" : "usual"}});
    FAIL() << "rank " << world().rank() << " saw no difference";
  } catch (const Error& e) {
    EXPECT_EQ(e.exit(), Exit::disagree);
    const std::string text = e.what();
    EXPECT_NE(text.find("kernel table differs"), std::string::npos) << text;
    EXPECT_NE(text.find(fmt::format("other on rank {}", last)), std::string::npos) << text;
    EXPECT_NE(text.find(last == 1 ? "usual on rank 0" : "usual on ranks 0, 1"), std::string::npos) << text;
    EXPECT_EQ(text.find("resolved job"), std::string::npos) << text;
  }
  world().barrier();  // the communicator is as good as before
}

TEST(Together, AllThrowWhatOneRankThrew) {
  const int last = world().size() - 1;
  try {
    together(world(), [&] {
      if (world().rank() == last) throw Error(Exit::data, "E_X", "broken").at("file", "f");
    });
    FAIL();
  } catch (const AgreedError& e) {
    EXPECT_EQ(e.exit(), Exit::data);
    EXPECT_EQ(e.message(), "broken");
    const auto& places = e.places();
    EXPECT_EQ(places[0].second, "f");
    if (last > 0) {
      EXPECT_EQ(places.at(1), std::make_pair(std::string("rank"), std::to_string(last)));
    }
  }
  EXPECT_EQ(on_root(world(), [] { return std::string("from the root"); }), "from the root");
  EXPECT_THROW(on_root(world(), []() -> std::string { throw Error(Exit::io, "E_Y", "full"); }), AgreedError);
}

TEST(Together, MemoryThatRunsOutIsNoBug) {
  try {
    together(world(), [] { throw std::bad_alloc(); });
    FAIL();
  } catch (const AgreedError& e) {
    EXPECT_EQ(e.exit(), Exit::io) << e.what();
  }
}

TEST(MirrorCommunicator, TakesAllRanksForItsOwnLikeness) {
  const auto mirror = make_mirror_communicator(3);
  EXPECT_EQ(mirror->rank(), 0);
  EXPECT_EQ(mirror->duplicate("statistics")->size(), 3);
  std::vector<float> sum = {1, 2}, most = {1, 2};
  mirror->allreduce(std::span(sum), Reduce::sum);
  mirror->allreduce(std::span(most), Reduce::max);
  EXPECT_EQ(sum, (std::vector<float>{3, 6}));
  EXPECT_EQ(most, (std::vector<float>{1, 2}));
  mirror->wait(mirror->start_allreduce(sum));
  EXPECT_EQ(sum, (std::vector<float>{9, 18}));
  EXPECT_EQ(mirror->gather_text("it"), (std::vector<std::string>{"it", "it", "it"}));
}

}  // namespace
}  // namespace lockstep::collectives_test
