// SPDX-License-Identifier: Apache-2.0
// Every kind of mistake that the watch knows, made on purpose in broken.cu: found, named rightly, at the
// right line; and sound kernels that look like them, not found.
#include "kernels/gpu/watch/watch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <vector>

#include "kernels/core/error.h"
#include "tests/kernels/gpu/kernels.h"
#include "tests/kernels/gpu/memory.h"

namespace lockstep::watch_test {
namespace {

using simt_executor::Problem;

// "tests/kernels/gpu/broken.cu:93" of the marked line in the kernel's body, or empty.
std::string marked_line(const std::string& kernel, const std::string& mark) {
  std::ifstream file(std::string(LOCKSTEP_SOURCE_DIR) + "/tests/kernels/gpu/broken.cu");
  std::string line;
  bool inside = false;
  for (int n = 1; std::getline(file, line); ++n) {
    if (line.find("void " + kernel + "(") != std::string::npos) inside = true;
    if (inside && line.find("// " + mark) != std::string::npos)
      return "tests/kernels/gpu/broken.cu:" + std::to_string(n);
    if (inside && line == "}") return {};
  }
  return {};
}

struct Expected {
  const char* name;
  Problem problem;
  const char* kernel = nullptr;  // in the source, where that is another
};
constexpr Expected kExpected[] = {
    {"write_past_the_end", Problem::global_out_of_bounds},
    {"read_before_the_start", Problem::global_out_of_bounds},
    {"vector_past_the_end", Problem::global_out_of_bounds},
    {"static_shared_past_the_end", Problem::shared_out_of_bounds},
    {"dynamic_shared_past_the_end", Problem::shared_out_of_bounds},
    {"shared_never_written", Problem::shared_unwritten},
    {"shared_kept_from_another_block", Problem::shared_unwritten},
    {"race_read_after_write", Problem::shared_race},
    {"race_write_after_read", Problem::shared_race},
    {"race_between_warps", Problem::shared_race},
    {"race_between_halves", Problem::shared_race},
    {"race_of_bytes", Problem::shared_race},
    {"blocks_write_one_element", Problem::global_race},
    {"block_reads_what_another_wrote", Problem::global_race},
    {"different_barriers", Problem::barrier},
    {"barrier_after_a_return", Problem::barrier},
    {"syncwarp_after_a_return", Problem::barrier},
    {"mma_after_a_return", Problem::warp},
    {"named_barrier_too_few", Problem::barrier},
    {"named_barrier_odd_count", Problem::barrier},
    {"shuffle_in_a_branch", Problem::warp},
    {"shuffle_outside_its_mask", Problem::warp},
    {"shuffle_from_outside", Problem::warp},
    {"shuffle_with_exited_lanes", Problem::warp},
    {"mma_in_half_a_warp", Problem::warp},
    {"misaligned_vector", Problem::misaligned},
    {"misaligned_float4", Problem::misaligned},
    {"copy_not_waited_for", Problem::async_copy},
    {"copy_waited_for_by_others_only", Problem::shared_race},
    {"copy_over_what_is_read", Problem::shared_race},
    {"copy_misaligned", Problem::misaligned},
    {"atomic_past_the_end", Problem::global_out_of_bounds},
    {"too_much_static_shared", Problem::launch_refused},
    {"too_many_threads", Problem::launch_refused, "nothing"},
    {"block_too_deep", Problem::launch_refused, "nothing"},
    {"too_many_blocks_in_y", Problem::launch_refused, "nothing"},
    {"too_much_dynamic_shared", Problem::launch_refused, "nothing"},
};

TEST(Watch, EveryMistakeIsFoundAtItsLine) {
  WatchedMemory m;
  gpu_watch::take_findings();
  const TestKernels kernels = simt_watched::broken_kernels();
  std::map<std::string, int> tried;
  std::vector<gpu_watch::Finding> found;
  for (const Expected& e : kExpected) {
    ++tried[e.name];
    kernels.at(e.name)(m.memory);
    // By kernel, so those of one kernel are taken one by one; asking for all at once is faster.
    if (!e.kernel) continue;
    for (auto& f : gpu_watch::take_findings()) {
      if (f.kernel.find(e.kernel) != std::string::npos) f.kernel = e.name;
      found.push_back(std::move(f));
    }
  }
  for (auto& f : gpu_watch::take_findings()) found.push_back(std::move(f));
  for (const Expected& e : kExpected) {
    SCOPED_TRACE(e.name);
    const std::string here = marked_line(e.kernel ? e.kernel : e.name, "here"),
                      other = marked_line(e.name, "other");
    ASSERT_FALSE(here.empty());
    const auto expected = [&](const std::string& place) {
      return place == here || (place == other && !other.empty());
    };
    bool caught = false;
    std::string all;
    for (const auto& f : found) {
      if (f.kernel.find(e.name) == std::string::npos) continue;
      all += f.text() + "\n";
      EXPECT_TRUE(expected(f.place) && (f.other.empty() || expected(f.other)))
          << "at another line: " << f.text();
      caught |= f.problem == e.problem;
    }
    EXPECT_TRUE(caught) << "wanted: " << name(e.problem) << " at " << here << "; found:\n" << all;
  }
  for (const auto& [name, kernel] : kernels) EXPECT_EQ(tried[name], 1) << name;
}

TEST(Watch, OneFindingALineWithItsCountAndFirstPlace) {
  WatchedMemory m;
  gpu_watch::take_findings();
  simt_watched::broken_kernels().at("blocks_write_one_element")(m.memory);
  const auto found = gpu_watch::take_findings();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].times, 2);  // blocks 1 and 2 against those before them
  EXPECT_NE(found[0].text().find("byte 0 of y; block (1, 0, 0), thread (0, 0, 0) (2 times)"),
            std::string::npos)
      << found[0].text();
  EXPECT_TRUE(gpu_watch::take_findings().empty()) << "taken twice";
}

// Without the watch nothing hangs: what cannot go on is an error.
TEST(Executor, PlainKernelsThatCannotGoOnThrow) {
  WatchedMemory m;
  for (const char* name : {"shuffle_in_a_branch", "named_barrier_too_few", "too_many_threads"}) {
    SCOPED_TRACE(name);
    try {
      simt::broken_kernels().at(name)(m.memory);
      ADD_FAILURE() << "nothing thrown";
    } catch (const Error& e) {
      EXPECT_EQ(e.id(), "E_SIMT");
      EXPECT_EQ(e.exit(), Exit::internal);
    }
  }
}

}  // namespace
}  // namespace lockstep::watch_test
