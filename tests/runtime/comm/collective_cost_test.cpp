// SPDX-License-Identifier: Apache-2.0
// Costs of collectives where they can be worked out by hand: all constants are sums of powers of two, so that
// results are exact.
#include "runtime/comm/collective_cost.h"

#include <gtest/gtest.h>

namespace lockstep::collective_cost_test {
namespace {

constexpr LinkSpeed kLink{1, 1};  // α, β

void expect_cost(const CollectiveCost& c, const std::string& algorithm, double latency, double bandwidth,
                 double summing) {
  EXPECT_EQ(c.algorithm, algorithm);
  EXPECT_DOUBLE_EQ(c.time.latency, latency);
  EXPECT_DOUBLE_EQ(c.time.bandwidth, bandwidth);
  EXPECT_DOUBLE_EQ(c.time.summing, summing);
}

TEST(CollectiveCost, OneRankSendsNothing) {
  expect_cost(allreduce_over_links(1, 8, kLink, 1), "none", 0, 0, 0);
  expect_cost(bucket_allreduce_cost({kLink, 8, {1, 1, 1}}, 1, 8), "none", 0, 0, 0);
  expect_cost(statistics_allreduce_cost({kLink, 8, {1, 1, 1}}, 1, 8), "none", 0, 0, 0);
  expect_cost(all_gather_cost({kLink, 8, {1, 1, 1}}, 1, 8), "none", 0, 0, 0);
}

TEST(CollectiveCost, ShortMessagesTakeTheFewestRounds) {
  // lg 4 (α + n β + n γ) = 2 (1 + 1 + 0.5); halving-doubling: 4 + 1.5 + 0.375, ring: 6 + ...
  expect_cost(allreduce_over_links(4, 1, kLink, 0.5), "recursive doubling", 2, 2, 1);
  expect_cost(allreduce_over_links(2, 2, kLink, 0.5), "recursive doubling", 1, 2, 1);  // else 2 + 2 + 0.5
}

TEST(CollectiveCost, LongMessagesAreCutInParts) {
  // 2 lg 4 α + 2 · 3/4 n β + 3/4 n γ, against 2 (1 + 8 + 4)
  expect_cost(allreduce_over_links(4, 8, kLink, 0.5), "halving-doubling", 4, 12, 3);
  expect_cost(allreduce_over_links(2, 64, kLink, 0.5), "halving-doubling", 2, 64, 16);
}

TEST(CollectiveCost, LongMessagesOfARankCountThatIsNoPowerOfTwoGoRound) {
  // 2 · 4 α + 2 · 4/5 n β, against 4 + 3 α and 3/2 + 2 n β
  expect_cost(allreduce_over_links(5, 640, kLink, 0.5), "ring", 8, 1024, 256);
}

TEST(CollectiveCost, ShortMessagesOfSuchARankCountPayTheFold) {
  // lg 4 (α + n β + n γ) and 2 (α + n β) + n γ
  expect_cost(allreduce_over_links(5, 0.5, kLink, 0.5), "recursive doubling", 4, 2, 0.75);
}

TEST(CollectiveCost, OneHostSumsThroughItsMemory) {
  const Cluster cluster{kLink, 4, {0.5, 0.25, 2}};
  expect_cost(bucket_allreduce_cost(cluster, 4, 16), "shared memory", 1, 0, 4);
  expect_cost(statistics_allreduce_cost(cluster, 3, 16), "shared memory", 0.5, 0, 4);
  expect_cost(all_gather_cost(cluster, 4, 16), "shared memory", 0.5, 0, 12);
}

TEST(CollectiveCost, HostsAreLinkedByOneRankOfEach) {
  Cluster cluster{kLink, 3, {0.5, 0.25, 0}};
  // Within: 4 meetings and twice the bytes. Between two hosts: 2 (α + n/2 β).
  expect_cost(bucket_allreduce_cost(cluster, 6, 16), "shared memory + halving-doubling", 4, 16, 8);
  // Four ranks, three on the first host: no nodes of the tree over four. 4 α + 2 · 3/4 n · 3 β
  expect_cost(bucket_allreduce_cost(cluster, 4, 16), "shared memory + halving-doubling", 4, 16, 8);
  cluster.fixed_order = true;
  expect_cost(bucket_allreduce_cost(cluster, 4, 16), "halving-doubling", 4, 72, 0);
  cluster.fixed_order = false;
  // Seven ranks are three hosts, the last with one rank: 4 α + 4/3 n β round the ring.
  expect_cost(bucket_allreduce_cost(cluster, 7, 768), "shared memory + ring", 6, 1024, 384);
}

TEST(CollectiveCost, RanksOfAHostShareItsLinkForStatistics) {
  const Cluster cluster{kLink, 2, {0.5, 0.25, 0}};
  expect_cost(statistics_allreduce_cost(cluster, 4, 1), "recursive doubling", 2, 4, 0);
  expect_cost(all_gather_cost(cluster, 5, 2), "recursive doubling", 3, 16, 0);  // ⌈lg 5⌉ α + 4 · 2 · 2 β
  expect_cost(all_gather_cost({kLink, 1, {}}, 8, 2), "recursive doubling", 3, 14, 0);
}

TEST(CollectiveCost, FasterLinksNeverCostMore) {
  for (const int per_host : {1, 2, 8})
    for (const int64_t ranks : {2, 3, 4, 7, 8, 64, 100, 512})
      for (const int64_t bytes : {64, 4096, 1 << 20, 100 << 20}) {
        double before = 1e30;
        for (const double bandwidth : {1e7, 1e8, 1e9, 1e10, 1e11}) {
          const Cluster cluster{{5e-6, 1 / bandwidth}, per_host, {1e-6, 1e-10, 1e-10}};
          const double now = bucket_allreduce_cost(cluster, ranks, bytes).time.total();
          EXPECT_GT(now, 0);
          EXPECT_LE(now, before) << ranks << " ranks, " << bytes << " bytes, " << bandwidth << " bytes/s";
          before = now;
        }
      }
}

}  // namespace
}  // namespace lockstep::collective_cost_test
