// SPDX-License-Identifier: Apache-2.0
#include "runtime/telemetry/trace.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

namespace lockstep {
namespace {

using nlohmann::json;

const Trace::Work kBig{"conv2d conv1", "forward", "winograd", 3'000'000, 4096};
const Trace::Work kSmall{"elementwise \"relu\"", "backward", "", 0, 0};

TEST(Trace, RecordsSoManyStepsAndNoMore) {
  Trace t(2);
  EXPECT_FALSE(t.recording());
  t.start();
  EXPECT_TRUE(t.recording());
  t.end_step();
  EXPECT_TRUE(t.recording());
  t.end_step();
  EXPECT_FALSE(t.recording());
  EXPECT_EQ(t.steps(), 2);
  EXPECT_GT(t.step_seconds(), 0);
}

TEST(Trace, EventsOfAllRanksAreOneJsonFile) {
  std::vector<std::string> ranks;
  for (int rank : {0, 1}) {
    Trace t(1);
    t.start();
    const int64_t now = Trace::now_ns();
    t.add(Trace::Lane::compute, kBig, now, now + 2'000'000);
    t.add(Trace::Lane::compute, kSmall, now + 2'000'000, now + 2'500'000);
    t.add(Trace::Lane::communication, kSmall, now + 1'000'000, now + 3'000'000, 77);
    t.end_step();
    ranks.push_back(t.events(rank));
  }
  const json events = json::parse(Trace::trace_file(ranks)).at("traceEvents");
  std::vector<json> spans;
  for (const json& e : events)
    if (e.at("ph") == "X" && e.at("pid") == 1) spans.push_back(e);
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(spans[0].at("name"), "conv2d conv1");
  EXPECT_EQ(spans[0].at("dur"), 2000.0);  // microseconds
  EXPECT_GE(spans[0].at("ts"), 0);
  EXPECT_NEAR(spans[0].at("args").at("GFLOP/s").get<double>(), 1.5, 1e-9);
  EXPECT_EQ(spans[0].at("args").at("kernel"), "winograd");
  EXPECT_EQ(spans[0].at("args").at("bytes"), 4096);
  EXPECT_EQ(spans[1].at("name"), kSmall.name);
  EXPECT_FALSE(spans[1].at("args").contains("kernel"));
  EXPECT_EQ(spans[2].at("tid"), 1);
  EXPECT_EQ(spans[2].at("args").at("bytes"), 77);
}

TEST(Trace, TheTableHasTheMostExpensiveFirst) {
  Trace t(1);
  t.start();
  const int64_t now = Trace::now_ns();
  t.add(Trace::Lane::compute, kSmall, now, now + 1000);
  t.add(Trace::Lane::compute, kBig, now, now + 2'000'000);
  t.add(Trace::Lane::compute, kBig, now, now + 4'000'000);
  t.add(Trace::Lane::communication, kSmall, now, now + 9'000'000);
  t.end_step();
  const auto rows = t.rows();
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].work, &kBig);
  EXPECT_EQ(rows[0].calls, 2);
  EXPECT_NEAR(rows[0].seconds, 0.006, 1e-12);
  // 6 MFLOP in 6 ms: 1 GFLOP/s, a tenth of the peak said.
  EXPECT_THAT(profile_table(t, 10),
              ::testing::ContainsRegex("6\\.000 .* 1\\.0 +10%  conv2d conv1, forward, kernel winograd"));
}

TEST(Trace, TheTableOfMoreThanTenSumsUpTheRest) {
  std::vector<Trace::Work> works;
  for (int i = 0; i < 13; ++i) works.push_back({"op " + std::to_string(i), "forward", "", 0, 0});
  Trace t(1);
  t.start();
  for (const auto& work : works) t.add(Trace::Lane::compute, work, 0, 1'000'000);
  t.end_step();
  EXPECT_THAT(profile_table(t, 0), ::testing::ContainsRegex("3\\.000 .* 3 other kinds of work"));
}

}  // namespace
}  // namespace lockstep
