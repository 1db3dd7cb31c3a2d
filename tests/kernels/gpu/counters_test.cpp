// SPDX-License-Identifier: Apache-2.0
// What accesses cost, against what the hardware's rules give for kernels small enough to work it out by hand.
#include <gtest/gtest.h>

#include "kernels/gpu/watch/watch.h"
#include "tests/kernels/gpu/kernels.h"
#include "tests/kernels/gpu/memory.h"

namespace lockstep::counters_test {
namespace {

using gpu_watch::RequestCount;
using gpu_watch::Space;

struct Expected {
  const char* kernel;
  RequestCount global, shared;  // requests, moved, least
};
// 32 floats side by side are 4 sectors, read and written.
constexpr Expected kExpected[] = {
    {"side_by_side", {2, 8, 8}, {}},
    {"far_apart", {2, 32 + 4, 4 + 4}, {}},
    {"one_for_all", {2, 1 + 4, 1 + 4}, {}},
    {"vectors_off_by_half_a_sector", {2, 17 + 16, 16 + 16}, {}},
    {"a_loop_with_a_tail", {4, 2 * (4 + 1), 2 * (4 + 1)}, {}},
    {"twice_around_a_barrier", {4, 2 * (2 + 4), 2 * (2 + 4)}, {}},
    {"column_of_shared<32>", {1, 4, 4}, {2, 32 + 1, 1 + 1}},
    {"column_of_shared<33>", {1, 4, 4}, {2, 1 + 1, 1 + 1}},
    // 16 bytes a lane go in four groups of lanes; words four apart meet in 8 banks.
    {"vectors_of_shared<4>", {2, 20, 20}, {2, 4 + 4, 4 + 1}},
    {"vectors_of_shared<8>", {2, 20, 20}, {2, 8 + 8, 4 + 1}},
    {"matrices", {2, 20, 20}, {2, 4 + 4, 4 + 4}},
};

TEST(Counters, AccessesCostWhatTheHardwaresRulesSay) {
  WatchedMemory m;
  for (const Expected& e : kExpected) {
    SCOPED_TRACE(e.kernel);
    gpu_watch::Counting counting;
    simt_watched::counted_kernels().at(e.kernel)(m.memory);
    const auto counted = counting.take();
    ASSERT_EQ(counted.size(), 1u);
    const auto& k = counted[0];
    EXPECT_EQ(k.launches, 1);
    EXPECT_EQ(k.threads, 32u);
    const std::string name = e.kernel;
    EXPECT_NE(k.kernel.find(name.substr(0, name.find('<'))), std::string::npos) << k.kernel;
    for (const auto& [space, expected] : {std::pair{Space::global, e.global}, {Space::shared, e.shared}}) {
      const RequestCount got = k.total(space);
      EXPECT_EQ(got.requests, expected.requests) << "space " << int(space);
      EXPECT_EQ(got.moved, expected.moved) << "space " << int(space);
      EXPECT_EQ(got.least, expected.least) << "space " << int(space);
    }
  }
  EXPECT_TRUE(gpu_watch::take_findings().empty());
}

TEST(Counters, BytesAreCountedOnceALaunchAndPlacesNamed) {
  WatchedMemory m;
  gpu_watch::Counting counting;
  const auto kernels = simt_watched::counted_kernels();
  kernels.at("one_for_all")(m.memory);
  kernels.at("one_for_all")(m.memory);
  const auto counted = counting.take();
  ASSERT_EQ(counted.size(), 1u);
  EXPECT_EQ(counted[0].launches, 2);
  EXPECT_EQ(counted[0].bytes_read, 2 * 4);
  EXPECT_EQ(counted[0].bytes_written, 2 * 128);
  ASSERT_EQ(counted[0].places.size(), 2u);
  for (const auto& p : counted[0].places)
    EXPECT_EQ(p.place.find("tests/kernels/gpu/counted.cu:"), 0u) << p.place;
  EXPECT_TRUE(counting.take().empty()) << "taken twice";
}

}  // namespace
}  // namespace lockstep::counters_test
