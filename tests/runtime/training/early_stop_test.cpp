// SPDX-License-Identifier: Apache-2.0
// The rule by which training ends early.
#include "runtime/training/early_stop.h"

#include <gtest/gtest.h>

#include <limits>

namespace lockstep {
namespace {

StopConfig rule(const std::string& metric) {
  StopConfig c;
  c.metric = metric;
  return c;
}
Score scored(double loss, double accuracy) {
  Score s;
  s.loss = loss, s.accuracy = accuracy;
  return s;
}
// Looks until it stops; -1: it does not.
int stops_at(EarlyStop& stop, const std::vector<double>& losses) {
  for (size_t i = 0; i < losses.size(); ++i) {
    stop.look(scored(losses[i], 1 - losses[i]));
    if (stop.stopped()) return static_cast<int>(i);
  }
  return -1;
}

TEST(EarlyStop, LooksWhereItIsTold) {
  StopConfig c;
  EXPECT_FALSE(EarlyStop(c).looks_after(10, 10)) << "no metric, no look";
  c = rule("validation_loss");
  EXPECT_TRUE(EarlyStop(c).looks_after(20, 10));
  EXPECT_FALSE(EarlyStop(c).looks_after(25, 10));
  c.every_epochs = 2;
  EXPECT_FALSE(EarlyStop(c).looks_after(10, 10));
  EXPECT_TRUE(EarlyStop(c).looks_after(20, 10));
  c.every_epochs = {}, c.every_steps = 25;
  EXPECT_FALSE(EarlyStop(c).looks_after(20, 10));
  EXPECT_TRUE(EarlyStop(c).looks_after(25, 10));
}

TEST(EarlyStop, AtAValue) {
  StopConfig c = rule("validation_loss");
  c.at = 0.25;
  EarlyStop loss(c);
  EXPECT_EQ(stops_at(loss, {0.5, 0.26, 0.25, 0.1}), 2);
  EXPECT_EQ(loss.reason(), "validation_loss 0.25 has reached 0.25");
  c = rule("test_accuracy");
  c.at = 0.75;
  EarlyStop accuracy(c);
  EXPECT_TRUE(accuracy.on_test());
  EXPECT_EQ(stops_at(accuracy, {0.5, 0.26, 0.25, 0.1}), 2);
}

TEST(EarlyStop, OutOfPatience) {
  for (const char* metric : {"validation_loss", "validation_accuracy"}) {
    StopConfig c = rule(metric);
    c.patience = 2;
    EarlyStop plain(c);
    EXPECT_EQ(stops_at(plain, {0.5, 0.6, 0.4, 0.4, 0.3, 0.3, 0.3}), 6) << metric;
    c.min_delta = 0.2;
    EarlyStop delta(c);
    EXPECT_EQ(stops_at(delta, {0.5, 0.4, 0.2, 0.15, 0.1}), 4)
        << metric << ": only 0.2 is better by more than that";
  }
}

TEST(EarlyStop, WhatIsNoNumberIsNeverTheBest) {
  StopConfig c = rule("validation_loss");
  c.patience = 2;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EarlyStop first(c), all(c);
  EXPECT_EQ(stops_at(first, {nan, 0.5, 0.6, 0.7}), 3);
  EXPECT_EQ(stops_at(all, {nan, nan}), 1);
}

TEST(EarlyStop, GoesOnFromItsState) {
  StopConfig c = rule("validation_loss");
  c.patience = 3;
  const std::vector<double> losses = {0.5, 0.4, 0.45, 0.41, 0.4};
  EarlyStop whole(c);
  const int end = stops_at(whole, losses);
  ASSERT_EQ(end, 4);
  for (int cut = 1; cut < end; ++cut) {
    EarlyStop first(c), second(c);
    EXPECT_EQ(stops_at(first, {losses.begin(), losses.begin() + cut}), -1);
    second.restore(EarlyStop::read_state(nlohmann::json::parse(first.state().dump()), "meta.json"));
    EXPECT_EQ(stops_at(second, {losses.begin() + cut, losses.end()}), end - cut) << cut;
  }
  EarlyStop stopped(c);
  stopped.restore(EarlyStop::read_state(whole.state(), "meta.json"));
  EXPECT_EQ(stopped.reason(), whole.reason());
}

}  // namespace
}  // namespace lockstep
