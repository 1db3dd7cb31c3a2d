// SPDX-License-Identifier: Apache-2.0
// Starts this executable's other tests, and the program that loses a peer, under mpirun.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "runtime/comm/communicator.h"
#include "tests/support/process.h"

namespace lockstep::on_ranks_test {
namespace {

using testing::mpirun;
using testing::Process;
using testing::run;

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

// Ranks, how many of them are taken for those of one host ("": all, as it is), and whether their sums have a
// fixed order.
struct Ranks {
  int count;
  const char* per_host;
  bool fixed_order = true;
};
void PrintTo(const Ranks& r, std::ostream* out) {
  *out << r.count << " ranks" << (*r.per_host ? ", per host " : "") << r.per_host
       << (r.fixed_order ? "" : ", in any order");
}

class OnRanks : public ::testing::TestWithParam<Ranks> {};

TEST_P(OnRanks, EveryTestPassesInEveryRank) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe");
  std::map<std::string, std::string> environment;
  if (*GetParam().per_host) environment.emplace("LOCKSTEP_RANKS_PER_HOST", GetParam().per_host);
  if (!GetParam().fixed_order) environment.emplace("LOCKSTEP_TEST_ANY_ORDER", "1");
  const auto r =
      run(mpirun(GetParam().count, {self, "--gtest_color=no",
                                    "--gtest_filter=World.*:Collectives.*:Agreement.*:Together.*:Cards.*"}),
          environment);
  EXPECT_EQ(r.code, 0) << r.output;
  const auto ranks = static_cast<size_t>(GetParam().count);
  EXPECT_EQ(count(r.output, "[  PASSED  ]"), ranks) << r.output;
  EXPECT_EQ(count(r.output, "[       OK ] World.HasTheSizeThatTheLauncherSays"), ranks) << r.output;
}
// With a rank a host all goes over MPI; three ranks of two a host make hosts of different sizes, and four of
// three a host are no tree, so that they share memory in any order only.
INSTANTIATE_TEST_SUITE_P(Counts, OnRanks,
                         ::testing::Values(Ranks{1, ""}, Ranks{2, ""}, Ranks{3, ""}, Ranks{4, ""},
                                           Ranks{2, "1"}, Ranks{3, "2"}, Ranks{4, "1"}, Ranks{4, "2"},
                                           Ranks{4, "3"}, Ranks{4, "3", false}));

TEST(OnHosts, ANumberThatIsNoneIsRefused) {
  const auto r =
      run(mpirun(2, {LOCKSTEP_LOSE_PEER, "silent", "statistics"}), {{"LOCKSTEP_RANKS_PER_HOST", "2x"}});
  EXPECT_NE(r.code, 0);
  EXPECT_NE(r.output.find("LOCKSTEP_RANKS_PER_HOST is '2x'"), std::string::npos) << r.output;
}

std::unique_ptr<Process> lose(int ranks, const std::string& how, const std::string& call, int rank,
                              const std::string& per_host = "") {
  const std::map<std::string, std::string> environment = {{"LOCKSTEP_RANKS_PER_HOST", per_host}};
  return std::make_unique<Process>(mpirun(ranks, {LOCKSTEP_LOSE_PEER, how, call, std::to_string(rank)}),
                                   environment);
}

// Under mpirun the exit code is that of the first rank to fail, and 75 is what the watchdog leaves with. The
// one that hangs would wait for ever: nothing but the watchdog ends these runs.
TEST(LostPeer, OneThatHangsIsNamedAtTheDeadline) {
  std::vector<std::unique_ptr<Process>> runs;  // at the same time: they only wait
  for (const char* call : {"allreduce", "ticket", "gradients", "barrier", "statistics", "small"})
    runs.push_back(lose(2, "silent", call, 1));
  for (auto& r : runs) {
    EXPECT_EQ(r->wait(), 75) << r->output();
    EXPECT_EQ(count(r->output(), "lost, told once:"), 1u) << r->output();
    EXPECT_NE(r->output().find("[E_PEER_LOST] rank=1 host="), std::string::npos) << r->output();
    EXPECT_NE(r->output().find(" has not come to "), std::string::npos) << r->output();
  }
}

struct Stopped {
  int ranks, rank;
  const char *per_host, *call;
};
void PrintTo(const Stopped& s, std::ostream* out) {
  *out << "rank " << s.rank << " of " << s.ranks << ", per host " << s.per_host << ", " << s.call;
}
class StoppedPeer : public ::testing::TestWithParam<Stopped> {};

// Whoever is stopped, among however many, over shared memory, over MPI and over both.
TEST_P(StoppedPeer, IsNamedByAll) {
  const auto [ranks, rank, per_host, call] = GetParam();
  const auto r = lose(ranks, "stopped", call, rank, per_host);
  EXPECT_EQ(r->wait(), 75) << r->output();
  EXPECT_EQ(count(r->output(), "lost, told once:"), 1u) << r->output();
  const std::string name = "[E_PEER_LOST] rank=" + std::to_string(rank) + " host=";
  EXPECT_NE(r->output().find(name), std::string::npos) << r->output();
  EXPECT_NE(r->output().find("does not answer"), std::string::npos) << r->output();
  if (call == std::string("gradients")) {
    EXPECT_NE(r->output().find("op=allreduce bucket 0"), std::string::npos) << r->output();
  }
}
INSTANTIATE_TEST_SUITE_P(Which, StoppedPeer,
                         ::testing::Values(Stopped{2, 0, "", "gradients"}, Stopped{2, 1, "1", "gradients"},
                                           Stopped{3, 1, "", "small"}, Stopped{4, 2, "2", "ticket"}));

// Who answers, and says that it is at its disk, has a deadline of its own.
TEST(LostPeer, OneAtWorkOfItsOwnIsWaitedFor) {
  const auto slow = lose(2, "slow", "barrier", 0), works = lose(3, "works", "small", 1);
  EXPECT_EQ(slow->wait(), 0) << slow->output();
  EXPECT_NE(slow->output().find("writing a checkpoint takes long"), std::string::npos) << slow->output();
  EXPECT_EQ(works->wait(), 75) << works->output();
  EXPECT_NE(works->output().find("[E_PEER_LOST] rank=1 host="), std::string::npos) << works->output();
  EXPECT_NE(works->output().find("it is at writing a checkpoint"), std::string::npos) << works->output();
}

// Long before the deadline, which is an hour.
TEST(LostPeer, AKilledOneEndsTheOthers) {
  Process p(mpirun(3, {LOCKSTEP_LOSE_PEER, "killed", "ticket"}), {{"LOCKSTEP_TEST_MARK", "killed-peer"}});
  EXPECT_GT(p.wait(), 0) << p.output();
  EXPECT_NE(p.output().find("signal 9"), std::string::npos) << p.output();
  EXPECT_TRUE(testing::processes_with("LOCKSTEP_TEST_MARK=killed-peer").empty());
}

// Nor do they wait where no launcher ends them: here a shell hides how the rank that fails has ended.
TEST(LostPeer, OneThatFailsTakesTheOthersAlong) {
  const std::string hide = " fails small 2; echo left with $?; exec sleep 60";
  Process p(mpirun(3, {"sh", "-c", LOCKSTEP_LOSE_PEER + hide}));
  const auto all_left = [&] {
    p.wait_for("nothing says this", std::chrono::milliseconds(100));
    return count(p.output(), "left with 65") == 3;
  };
  EXPECT_TRUE(testing::eventually(all_left)) << p.output();
  p.signal(SIGTERM);
  p.wait();
}

class Launchers : public ::testing::Test {
 protected:
  // Variables of no launcher, whatever started this test.
  Launchers() {
    for (const char* name : kNames) ::unsetenv(name);
  }
  ~Launchers() override {
    for (const char* name : kNames) ::unsetenv(name);
  }
  static constexpr const char* kNames[] = {"OMPI_COMM_WORLD_RANK",
                                           "OMPI_COMM_WORLD_SIZE",
                                           "OMPI_COMM_WORLD_LOCAL_RANK",
                                           "OMPI_COMM_WORLD_LOCAL_SIZE",
                                           "PMI_RANK",
                                           "PMI_SIZE",
                                           "MPI_LOCALNRANKS",
                                           "MPI_LOCALRANKID",
                                           "SLURM_STEP_ID",
                                           "SLURM_PROCID",
                                           "SLURM_NTASKS",
                                           "SLURM_STEP_NUM_TASKS",
                                           "SLURM_STEP_TASKS_PER_NODE",
                                           "SLURM_LOCALID",
                                           "SLURM_NODEID"};
};

void set(std::initializer_list<std::pair<const char*, const char*>> variables) {
  for (const auto& [name, value] : variables) ::setenv(name, value, 1);
}

TEST_F(Launchers, None) {
  const auto e = launcher_environment();
  EXPECT_FALSE(e.present);
  EXPECT_EQ(e.size, 1);
}

TEST_F(Launchers, OpenMpi) {
  set({{"OMPI_COMM_WORLD_RANK", "3"},
       {"OMPI_COMM_WORLD_SIZE", "4"},
       {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
       {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
  const auto e = launcher_environment();
  EXPECT_TRUE(e.present);
  EXPECT_EQ(e.rank, 3);
  EXPECT_EQ(e.size, 4);
  EXPECT_EQ(e.local_rank, 1);
  EXPECT_EQ(e.local_size, 2);
}

TEST_F(Launchers, Hydra) {
  set({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALNRANKS", "2"}, {"MPI_LOCALRANKID", "1"}});
  const auto e = launcher_environment();
  EXPECT_TRUE(e.present);
  EXPECT_EQ(e.rank, 1);
  EXPECT_EQ(e.local_size, 2);
}

TEST_F(Launchers, SlurmStep) {
  set({{"SLURM_STEP_ID", "0"},
       {"SLURM_PROCID", "9"},
       {"SLURM_STEP_NUM_TASKS", "11"},
       {"SLURM_NTASKS", "16"},
       {"SLURM_STEP_TASKS_PER_NODE", "4(x2),3"},
       {"SLURM_NODEID", "2"},
       {"SLURM_LOCALID", "1"}});
  auto e = launcher_environment();
  EXPECT_TRUE(e.present);
  EXPECT_EQ(e.rank, 9);
  EXPECT_EQ(e.size, 11);
  EXPECT_EQ(e.local_rank, 1);
  EXPECT_EQ(e.local_size, 3);
  set({{"SLURM_NODEID", "1"}});
  EXPECT_EQ(launcher_environment().local_size, 4);
}

TEST_F(Launchers, ASlurmBatchScriptIsNoStep) {
  for (const char* id : {"4294967291", "4294967290", "batch"}) {
    set({{"SLURM_STEP_ID", id}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}});
    EXPECT_FALSE(launcher_environment().present) << id;
  }
  ::unsetenv("SLURM_STEP_ID");
  EXPECT_FALSE(launcher_environment().present);
}

// What the launcher says and what MPI sees differ where the launcher belongs to another MPI.
TEST(Launcher, OfAnotherMpiIsRefused) {
  const auto r = run({LOCKSTEP_LOSE_PEER, "init", ""}, {{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}});
  EXPECT_EQ(r.code, 76) << r.output;
  EXPECT_NE(r.output.find("started 2 ranks, but MPI sees 1"), std::string::npos) << r.output;
}

}  // namespace
}  // namespace lockstep::on_ranks_test
