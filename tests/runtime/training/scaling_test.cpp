// SPDX-License-Identifier: Apache-2.0
// The model of a step on many ranks: on plans made by hand, whose times can be worked out, and what it sees
// in a real one.
#include "runtime/training/scaling.h"
#include "models/objectives/classification.h"

#include <gtest/gtest.h>

#include "runtime/training/step_timing.h"
#include "tests/runtime/graph/nets.h"

namespace lockstep::testing {
namespace {

using Stream = StreamEvent::Kind;

StreamEvent compute(double seconds, bool waits = false) { return {Stream::compute, seconds, 0, waits}; }
StreamEvent bucket(double seconds, double summing = 0) { return {Stream::bucket, seconds, summing}; }

void expect_times(const std::vector<StreamEvent>& events, bool spare_core, double step, double communication,
                  double exposed) {
  const StepTime t = simulate_step(events, spare_core);
  EXPECT_DOUBLE_EQ(t.step, step);
  EXPECT_DOUBLE_EQ(t.communication, communication);
  EXPECT_DOUBLE_EQ(t.exposed(), exposed);
}

TEST(SimulateStep, HidesABucketBehindTheOpsThatFollow) {
  expect_times({compute(1), bucket(2), compute(5), compute(1, true)}, true, 7, 2, 0);
}

TEST(SimulateStep, ExposesABucketThatNothingFollowsButItsReader) {
  expect_times({compute(5), bucket(2), compute(1, true)}, true, 8, 2, 2);
}

TEST(SimulateStep, SumsOneBucketAfterTheOther) {
  // The second bucket is handed over at 2 and starts at 5, when the first has ended; the reader starts at 9.
  expect_times({compute(1), bucket(4), compute(1), bucket(4), compute(1), compute(1, true)}, true, 10, 8, 6);
}

TEST(SimulateStep, EndsWithTheLastBucket) { expect_times({compute(1), bucket(4)}, true, 5, 4, 4); }

TEST(SimulateStep, WaitsForStatisticsWhereTheyStand) {
  expect_times({compute(1), {Stream::blocking, 2, 1}, compute(1)}, true, 5, 3, 3);
}

TEST(SimulateStep, StandsStillForASumThatNoCoreIsSpareFor) {
  const std::vector<StreamEvent> events = {compute(1), bucket(1, 2), compute(5), compute(1, true)};
  expect_times(events, true, 7, 3, 0);
  expect_times(events, false, 9, 3, 2);
}

// Two buckets of 1,000 bytes: one halfway through the backward pass, one at its end.
ScalingInput input(LinkSpeed link, int ranks_per_host = 1) {
  ScalingInput in;
  in.events = {{StepEvent::Kind::compute, 2},
               {StepEvent::Kind::bucket, 0, false, false, 1000},
               {StepEvent::Kind::compute, 1},
               {StepEvent::Kind::bucket, 0, false, false, 1000},
               {StepEvent::Kind::compute, 1, true}};
  in.samples_per_rank = 8;
  in.link = link;
  in.ranks_per_host = ranks_per_host;
  for (int r = 1; r <= ranks_per_host; ++r) in.hosts[r] = {};
  in.cores_per_host = 64;
  return in;
}

TEST(PredictStep, OneRankOnlyComputes) {
  const ScalingPoint p = predict_step(input({1, 1}), 1);
  EXPECT_DOUBLE_EQ(p.time.step, 4);
  EXPECT_DOUBLE_EQ(p.time.communication, 0);
  EXPECT_DOUBLE_EQ(p.samples_per_second, 2);
  EXPECT_DOUBLE_EQ(p.efficiency, 1);
  EXPECT_EQ(p.binds, "compute");
}

TEST(PredictStep, IsBoundByComputeWhereBucketsAreHidden) {
  const ScalingPoint p = predict_step(input({0, 1e-6}), 2);
  EXPECT_DOUBLE_EQ(p.time.step, 4.001);  // the second bucket
  EXPECT_EQ(p.binds, "compute");
  EXPECT_EQ(p.algorithms, (std::map<std::string, int64_t>{{"halving-doubling", 2}}));
}

TEST(PredictStep, IsBoundByBandwidth) {
  // Two ranks: a bucket takes 4; from 2 to 6 and to 10, then the reader.
  const ScalingPoint p = predict_step(input({0, 4e-3}), 2);
  EXPECT_DOUBLE_EQ(p.time.step, 11);
  EXPECT_DOUBLE_EQ(p.time.exposed(), 7);
  EXPECT_DOUBLE_EQ(p.efficiency, 4.0 / 11);
  EXPECT_EQ(p.binds, "bandwidth");
}

TEST(PredictStep, IsBoundByLatency) {
  // 2 lg 8 α for each bucket: from 2 to 8 and to 14.
  const ScalingPoint p = predict_step(input({1, 1e-9}), 8);
  EXPECT_NEAR(p.time.step, 15, 1e-5);
  EXPECT_EQ(p.binds, "latency");
}

TEST(PredictStep, IsBoundBySumsInMemory) {
  ScalingInput in = input({1, 1}, 2);
  in.hosts[2].speed.shared_sum_seconds_per_byte = 2e-3;
  in.cores_per_host = 2;  // none is spare, so that both sums stop the ops
  const ScalingPoint p = predict_step(in, 2);
  EXPECT_DOUBLE_EQ(p.time.step, 8);
  EXPECT_EQ(p.binds, "summing");
  in.cores_per_host = 4;
  EXPECT_DOUBLE_EQ(predict_step(in, 2).time.step, 7);  // from 2 to 4 and to 6, then the reader
}

TEST(PredictStep, IsBoundByTheHostWhereItsRanksSlowEachOtherDown) {
  ScalingInput in = input({0, 1e-9}, 2);
  in.hosts[2].slowdown = 1.5;
  const ScalingPoint p = predict_step(in, 4);
  EXPECT_NEAR(p.time.compute, 6, 1e-12);
  EXPECT_NEAR(p.efficiency, 4.0 / 6, 1e-3);
  EXPECT_EQ(p.binds, "host");
  EXPECT_DOUBLE_EQ(predict_step(in, 1).time.step, 4);
}

TEST(PredictStep, OpsThatReadEveryRanksPartGrow) {
  ScalingInput in = input({0, 1e-9});
  in.events[0].grows = true;
  in.event_ranks = 4;
  EXPECT_DOUBLE_EQ(predict_step(in, 1).time.compute, 2.5);
  EXPECT_DOUBLE_EQ(predict_step(in, 8).time.compute, 6);
}

TEST(PredictStep, IsNeverMoreThanEfficientAndNeverSlowerOverAFasterLink) {
  for (const int per_host : {1, 4})
    for (const int64_t ranks : {1, 2, 3, 8, 64, 512}) {
      double before = 1e30;
      for (const double bandwidth : {1e2, 1e3, 1e4, 1e6}) {
        ScalingInput in = input({0.01, 1 / bandwidth}, per_host);
        for (auto& [count, host] : in.hosts) host.speed = {1e-3, 1e-4, 1e-4};
        const ScalingPoint p = predict_step(in, ranks);
        EXPECT_LE(p.efficiency, 1);
        EXPECT_GT(p.efficiency, 0);
        EXPECT_LE(p.time.step, before) << ranks << " ranks, " << bandwidth << " bytes/s";
        before = p.time.step;
      }
    }
}

SessionOptions small_net(int64_t classes = kClasses) {
  SessionOptions o;
  o.objective = classification(
      [](ModelContext& c, ValueId x) {
        const Layers l{c.builder, c.step_state};
        return l.linear("fc", l.relu(l.batch_norm("bn", l.conv("conv", x, 8, 3), c.ranks)), kClasses);
      },
      {kChannels, kSide, kSide, classes, {0, 0, 0}, {1, 1, 1}}, o.config);
  o.config.global_batch_size = 8;
  return o;
}

int64_t count(const std::vector<StepEvent>& events, StepEvent::Kind kind) {
  return std::count_if(events.begin(), events.end(), [&](const StepEvent& e) { return e.kind == kind; });
}

TEST(StepTiming, SeesThePlanOfManyRanksAndTimesItsOps) {
  for (const int copies : {1, 2}) {
    const StepTiming t = time_training_step(small_net(), 4, 6, copies);
    EXPECT_EQ(count(t.events, StepEvent::Kind::bucket), 1);
    EXPECT_EQ(count(t.events, StepEvent::Kind::statistics_gather), 1);
    EXPECT_EQ(count(t.events, StepEvent::Kind::statistics_sum), 1);
    double sum = 0;
    int64_t growing = 0;
    for (const StepEvent& e : t.events) {
      if (e.kind == StepEvent::Kind::statistics_gather) {
        EXPECT_EQ(e.bytes, 3 * 8 * 4);
      }
      if (e.kind == StepEvent::Kind::statistics_sum) {
        EXPECT_EQ(e.bytes, 2 * 8 * 4);
      }
      if (e.kind != StepEvent::Kind::compute) continue;
      EXPECT_GT(e.seconds, 0);
      EXPECT_EQ(e.waits, &e == &t.events.back());  // the optimizer
      growing += e.grows;
      sum += e.seconds;
    }
    EXPECT_EQ(growing, 1);
    EXPECT_GE(t.steps, 5);
    EXPECT_GT(t.step_seconds, 0.5 * sum);
  }
}

TEST(StepTiming, RunsAllMicroBatches) {
  SessionOptions o = small_net();
  o.config.gradient_accumulation = 3;
  o.config.global_batch_size = 24;
  const StepTiming t = time_training_step(o, 4, 2, 1);
  EXPECT_EQ(count(t.events, StepEvent::Kind::statistics_gather), 3);
  EXPECT_EQ(count(t.events, StepEvent::Kind::bucket), 1);
}

TEST(StepTiming, HandsOnWhatARankThrows) {
  const SessionOptions o = small_net(kClasses + 1);  // the model has fewer
  EXPECT_THROW(time_training_step(o, 4, 2, 2), Error);
}

}  // namespace
}  // namespace lockstep::testing
