// SPDX-License-Identifier: Apache-2.0
// The real program with and without mpirun: how jobs end, and what signals, lost ranks and lost launchers
// leave.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/telemetry/run_folder.h"
#include "tests/distributed/launch.h"

namespace lockstep::launcher_test {
namespace {

using testing::eventually;
using testing::Launch;
using testing::mpirun;
using testing::Process;
using testing::processes_with;
using testing::send_signal;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

TEST_F(Launch, TwoRanksThroughMpirun) {
  Process p(fit(), environment());
  EXPECT_EQ(p.wait(), 0) << p.output();
  EXPECT_EQ(read_status(run_).state, "completed");
  EXPECT_EQ(read_status(run_).step, 6);
  EXPECT_TRUE(living().empty());
}

TEST_F(Launch, OneRankNeedsNoMpirun) {
  Process one(fit({"--set", "instance_count=1"}), environment({{"PATH", "/nowhere"}}));
  EXPECT_EQ(one.wait(), 0) << one.output();
  run_ += "-2";
  Process two(fit(), environment({{"PATH", "/nowhere"}}));
  EXPECT_EQ(two.wait(), 78) << two.output();
  EXPECT_NE(two.output().find("no mpirun on the PATH"), std::string::npos) << two.output();
}

TEST_F(Launch, MoreRanksThanCores) {
  Process p(fit({"--set", "instance_count=5"}), environment());
  EXPECT_EQ(p.wait(), 0) << p.output();
}

TEST_F(Launch, HostsByName) {
  Process p(fit({"--set", "hosts=[\"localhost:2\"]"}), environment());
  EXPECT_EQ(p.wait(), 0) << p.output();
  EXPECT_EQ(read_status(run_).state, "completed");
}

TEST_F(Launch, UnreachableHost) {
  Process p(fit({"--set", "hosts=[\"192.0.2.1:2\"]"}),
            environment({{"OMPI_MCA_plm_rsh_agent", "/bin/false"}}));
  EXPECT_EQ(p.wait(), 69) << p.output();
  EXPECT_NE(p.output().find("mpirun could not start the ranks"), std::string::npos) << p.output();
  const bool own_words = p.output().find("ORTE was unable") != std::string::npos ||            // Open MPI 4
                         p.output().find("PRTE has lost communication") != std::string::npos;  // Open MPI 5
  EXPECT_TRUE(own_words) << p.output();
}

TEST_F(Launch, MpirunStartsTheRanks) {
  Process p(mpirun(2, fit()), environment());
  EXPECT_EQ(p.wait(), 0) << p.output();
  EXPECT_EQ(read_status(run_).state, "completed");
}

TEST_F(Launch, RankCountsThatDiffer) {
  Process p(mpirun(3, fit()), environment());
  EXPECT_EQ(p.wait(), 76) << p.output();
  EXPECT_NE(p.output().find("instance_count: 2, the launcher started 3 ranks"), std::string::npos)
      << p.output();
}

// mpirun loses codes; the launcher doesn't.
TEST_F(Launch, RealExitCodes) {
  // Each step multiplies the weights by -1e6.
  Process diverged(fit({"--set", "hyperparameters.optimizer.lr=1e6", "--set",
                        "hyperparameters.optimizer.weight_decay=1", "--set", "hyperparameters.steps=40"}),
                   environment());
  EXPECT_EQ(diverged.wait(), 80) << diverged.output();
  EXPECT_EQ(read_status(run_).code, 80);
  Process again(fit(), environment());  // the folder holds a run
  EXPECT_EQ(again.wait(), 73) << again.output();
  for (const auto* p : {&diverged, &again})
    EXPECT_EQ(p->output().find("Primary job"), std::string::npos) << p->output();
}

class Signals : public Launch, public ::testing::WithParamInterface<int> {};

TEST_P(Signals, StopInOrder) {
  Process p(endless(), environment());
  ASSERT_TRUE(in_training()) << p.output();
  p.signal(GetParam());
  EXPECT_EQ(p.wait(), 75) << p.output();
  const Status s = read_status(run_);
  EXPECT_EQ(s.state, "interrupted");
  EXPECT_EQ(list_checkpoints(run_).back(), run_ + "/checkpoints/" + checkpoint_name(s.step));
  EXPECT_NE(p.output().find("--resume"), std::string::npos) << p.output();
  EXPECT_EQ(p.output().find("mpirun"), std::string::npos) << p.output();  // none of its noise
  EXPECT_TRUE(living().empty());
}

class OneProcess : public Signals {};

TEST_P(OneProcess, StopsInOrder) {
  Process p(endless({"--set", "instance_count=1"}), environment());
  ASSERT_TRUE(in_training()) << p.output();
  p.signal(GetParam());
  EXPECT_EQ(p.wait(), 75) << p.output();
  EXPECT_EQ(read_status(run_).state, "interrupted");
}

// However early a signal comes, the job stops in order or had not begun.
TEST_P(Signals, StopWhileTheRanksStart) {
  for (auto delay : {30ms, 80ms, 150ms}) {
    std::filesystem::remove_all(run_);
    Process p(endless(), environment());
    std::this_thread::sleep_for(delay);
    p.signal(GetParam());
    const int code = p.wait();
    if (code == 128 + GetParam()) continue;  // before the launcher itself catches it
    EXPECT_EQ(code, 75) << p.output();
    if (std::filesystem::exists(run_)) {
      EXPECT_EQ(read_status(run_).state, "interrupted") << p.output();
    } else {
      EXPECT_NE(p.output().find("before the ranks had met"), std::string::npos) << p.output();
    }
    EXPECT_TRUE(living().empty());
  }
}

// A name server that doesn't answer keeps mpirun waiting for five seconds at a time. Nothing is lost yet.
TEST_F(Launch, ASignalDoesNotWaitForAnMpirunThatStartsSlowly) {
  const std::string slow = folder_.file("mpirun");
  std::ofstream(slow) << "#!/bin/sh\ntouch " << slow << ".begun\nsleep 1000\n";
  std::filesystem::permissions(slow, std::filesystem::perms::owner_all);
  Process p(endless(), environment({{"PATH", folder_.path() + ":" + std::getenv("PATH")}}));
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(slow + ".begun"); })) << p.output();
  p.signal(SIGTERM);
  EXPECT_EQ(p.wait(), 75) << p.output();
  EXPECT_NE(p.output().find("E_STOPPED"), std::string::npos) << p.output();
  EXPECT_FALSE(std::filesystem::exists(run_));
  EXPECT_TRUE(living().empty());
}
INSTANTIATE_TEST_SUITE_P(All, Signals, ::testing::Values(SIGINT, SIGTERM, SIGUSR1, SIGHUP));
INSTANTIATE_TEST_SUITE_P(Both, OneProcess, ::testing::Values(SIGINT, SIGTERM));

// As clusters send them, which have several ways to a process.
TEST_F(Launch, SignalsWithinASecondAreOneWish) {
  Process p(endless(), environment());
  ASSERT_TRUE(in_training()) << p.output();
  for (const int signal : {SIGUSR1, SIGTERM, SIGHUP, SIGTERM})
    p.signal(signal), std::this_thread::sleep_for(1ms);
  EXPECT_EQ(p.wait(), 75) << p.output();
  EXPECT_EQ(read_status(run_).state, "interrupted") << p.output();
}

// mpirun alone would end the ranks a second after its SIGTERM.
TEST_F(Launch, MpirunIsSignalledToo) {
  Process p(endless(), environment());
  ASSERT_TRUE(in_training()) << p.output();
  for (const int signal : {SIGHUP, SIGTERM})
    for (pid_t m : living())
      if (m != p.pid() && m != rank_pid(0) && m != rank_pid(1)) ::kill(m, signal);
  p.signal(SIGTERM);
  EXPECT_EQ(p.wait(), 75) << p.output();
  EXPECT_EQ(read_status(run_).state, "interrupted") << p.output();
}

TEST_F(Launch, NohupIsObeyed) {
  std::string command = "trap '' HUP; exec";
  for (const std::string& word : endless()) command += " " + word;
  Process p({"sh", "-c", command}, environment());
  ASSERT_TRUE(in_training()) << p.output();
  p.signal(SIGHUP);
  ASSERT_TRUE(
      eventually([&] { return list_checkpoints(run_).back() > run_ + "/checkpoints/step-00000200"; }));
  p.signal(SIGTERM);
  EXPECT_EQ(p.wait(), 75) << p.output();
  EXPECT_EQ(read_status(run_).state, "interrupted") << p.output();
}

TEST_F(Launch, SecondSignalStopsAtOnce) {
  Process p(endless(), environment());
  ASSERT_TRUE(in_training()) << p.output();
  send_signal(rank_pid(1), SIGSTOP);  // so that the first one cannot be obeyed
  p.signal(SIGINT);
  ASSERT_TRUE(p.wait_for("once more to stop at once")) << p.output();
  std::this_thread::sleep_for(1100ms);  // within a second it is the same wish
  p.signal(SIGINT);
  const auto asked = Clock::now();
  EXPECT_EQ(p.wait(), 75) << p.output();
  EXPECT_LT(Clock::now() - asked, at_once());
  EXPECT_EQ(read_status(run_).state, "failed");
  EXPECT_TRUE(living().empty());
}

TEST_F(Launch, BareMpirunPassesUsr1On) {
  Process p(mpirun(2, endless()), environment());
  ASSERT_TRUE(in_training()) << p.output();
  p.signal(SIGUSR1);
  EXPECT_EQ(p.wait(), 75) << p.output();
  EXPECT_EQ(read_status(run_).state, "interrupted");
}

class KilledRank : public Launch, public ::testing::WithParamInterface<std::pair<int, int>> {};

TEST_P(KilledRank, IsNamedAtOnce) {
  const auto [rank, signal] = GetParam();
  Process p(endless(), environment());
  ASSERT_TRUE(in_training()) << p.output();
  send_signal(rank_pid(rank), signal);
  const auto killed = Clock::now();
  EXPECT_EQ(p.wait(), 75) << p.output();
  EXPECT_LT(Clock::now() - killed, at_once());
  const std::string name = "rank " + std::to_string(rank) + " ended by signal " + std::to_string(signal);
  EXPECT_NE(p.output().find(name), std::string::npos) << p.output();
  EXPECT_NE(p.output().find("resume with: lockstep fit"), std::string::npos) << p.output();
  const Status s = read_status(run_);
  EXPECT_EQ(s.state, "failed");
  EXPECT_EQ(s.code, 75);
  EXPECT_EQ(s.rank, rank);
  EXPECT_GE(s.step, 50);
  EXPECT_NE(p.output().find("step=" + std::to_string(s.step)), std::string::npos) << p.output();
  EXPECT_TRUE(living().empty());

  // Its lock is gone with it: the run can be resumed.
  Process resumed(endless({"--resume"}), environment());
  ASSERT_TRUE(eventually([&] { return read_status(run_).state == "running" && rank_pid(1) > 0; }));
  resumed.signal(SIGTERM);
  EXPECT_EQ(resumed.wait(), 75) << resumed.output();
  EXPECT_EQ(read_status(run_).state, "interrupted");
}
INSTANTIATE_TEST_SUITE_P(RankAndSignal, KilledRank,
                         ::testing::Values(std::pair(0, SIGKILL), std::pair(1, SIGKILL),
                                           std::pair(1, SIGSEGV)));

TEST_F(Launch, KilledMpirunLeavesNothingBehind) {
  Process p(endless(), environment());
  ASSERT_TRUE(in_training()) << p.output();
  for (pid_t m : living())
    if (const std::string program = program_of(m); !program.empty() && program != "lockstep")
      ::kill(m, SIGKILL);
  EXPECT_EQ(p.wait(), 75) << p.output();
  EXPECT_NE(p.output().find("mpirun was ended by signal 9"), std::string::npos) << p.output();
  EXPECT_EQ(read_status(run_).state, "failed");
  EXPECT_TRUE(living().empty());
}

TEST_F(Launch, KilledLauncherLeavesNothingBehind) {
  Process p(endless(), environment());
  ASSERT_TRUE(in_training()) << p.output();
  p.signal(SIGKILL);
  EXPECT_EQ(p.wait(), 128 + SIGKILL);
  EXPECT_TRUE(eventually([&] { return living().empty(); }, at_once()));
}

}  // namespace
}  // namespace lockstep::launcher_test
