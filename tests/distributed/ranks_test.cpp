// SPDX-License-Identifier: Apache-2.0
// What becomes of ranks: stopped, at a slow disk, or asked to stop one by one or all at once.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/telemetry/run_folder.h"
#include "tests/support/files.h"
#include "tests/support/process.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::ranks_test {
namespace {

// A job that goes on until it is stopped, of so many ranks.
class Job {
 public:
  explicit Job(int ranks) : ranks_(ranks) {
    write_file(
        folder_.file("job.yaml"),
        "job_name: tiny\nthreads_per_rank: 1\ndeadline_seconds: 2\n"
        "model: {layers: [flatten, linear: {out_features: 10}]}\n"
        "inputs: {training: {dataset: mnist, path: " LOCKSTEP_SOURCE_DIR
        "/configs/data/mnist, limit: 64}}\n"
        "hyperparameters: {steps: 100000000, global_batch_size: 8, seed: 1, optimizer: {name: sgd, lr: "
        "0.01}}\ncheckpoint: {every_steps: 50}\n");
  }
  ~Job() {
    for (pid_t p : living()) ::kill(p, SIGKILL);  // of a test that failed
  }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  std::vector<std::string> fit(std::vector<std::string> more = {}) const {
    std::vector<std::string> c = {LOCKSTEP_BINARY,
                                  "fit",
                                  folder_.file("job.yaml"),
                                  "--output",
                                  run(),
                                  "--set",
                                  "instance_count=" + std::to_string(ranks_)};
    c.insert(c.end(), more.begin(), more.end());
    return c;
  }
  void start(const std::vector<std::string>& command, std::map<std::string, std::string> environment = {}) {
    environment.emplace("LOCKSTEP_TEST_MARK", folder_.path());
    environment.emplace("XDG_CACHE_HOME", folder_.file("cache"));
    process_ = std::make_unique<Process>(command, environment);
  }
  Process& process() { return *process_; }
  std::string run() const { return folder_.file("run"); }
  std::string log() const { return read_file(run() + "/log.txt"); }
  bool in_training() const {
    return eventually([&] { return std::filesystem::exists(run() + "/checkpoints/step-00000050"); });
  }
  std::vector<pid_t> living() const { return processes_with("LOCKSTEP_TEST_MARK=" + folder_.path()); }
  pid_t rank(int number) const { return rank_with("LOCKSTEP_TEST_MARK=" + folder_.path(), number); }
  // By the step that was finished.
  void expect_stopped_in_order() {
    EXPECT_EQ(process().wait(), 75) << process().output();
    const Status s = read_status(run());
    EXPECT_EQ(s.state, "interrupted") << process().output();
    EXPECT_EQ(list_checkpoints(run()).back(), run() + "/checkpoints/" + checkpoint_name(s.step));
    EXPECT_TRUE(living().empty());
  }

 private:
  int ranks_;
  TestFolder folder_;
  std::unique_ptr<Process> process_;
};

struct Stopped {
  int ranks, rank;
  const char* per_host;
};
void PrintTo(const Stopped& s, std::ostream* out) {
  *out << "rank " << s.rank << " of " << s.ranks << (*s.per_host ? ", over MPI" : "");
}
class StoppedRank : public ::testing::TestWithParam<Stopped> {};

TEST_P(StoppedRank, IsNamed) {
  const auto [ranks, rank, per_host] = GetParam();
  Job job(ranks);
  job.start(job.fit(), {{"LOCKSTEP_RANKS_PER_HOST", per_host}});
  ASSERT_TRUE(job.in_training()) << job.process().output();
  send_signal(job.rank(rank), SIGSTOP);
  EXPECT_EQ(job.process().wait(), 75) << job.process().output();
  const std::string said = job.process().output();
  const std::string name = "error[E_PEER_LOST] rank=" + std::to_string(rank) + " host=";
  EXPECT_NE(said.find(name), std::string::npos) << said;
  EXPECT_EQ(said.find(name), said.rfind("E_PEER_LOST") - std::string("error[").size()) << "once: " << said;
  EXPECT_NE(said.find("resume with: lockstep fit"), std::string::npos) << said;
  EXPECT_NE(job.log().find(name), std::string::npos) << job.log();
  const Status s = read_status(job.run());
  EXPECT_EQ(s.state, "failed");
  EXPECT_EQ(s.code, 75);
  EXPECT_EQ(s.rank, rank);
  EXPECT_GE(s.step, 50);
  EXPECT_EQ(s.error_id, "E_PEER_LOST");
  EXPECT_FALSE(s.op.empty());
  EXPECT_TRUE(job.living().empty());
}
INSTANTIATE_TEST_SUITE_P(Which, StoppedRank,
                         ::testing::Values(Stopped{2, 0, ""}, Stopped{3, 2, ""}, Stopped{2, 1, "1"},
                                           Stopped{4, 0, "1"}));

// What waits for rank 0's disk has a deadline of its own, and a word while it waits.
TEST(SlowDisk, IsNoLostPeer) {
  Job job(2);
  job.start(job.fit({"--set", "hyperparameters.steps=50", "--set", "deadline_seconds=1"}),
            {{"LD_PRELOAD", LOCKSTEP_SLOW_CALLS},
             {"ASAN_OPTIONS", "verify_asan_link_order=0"},
             {"LOCKSTEP_TEST_SYNC_SECONDS", "8"}});
  EXPECT_EQ(job.process().wait(), 0) << job.process().output();
  EXPECT_EQ(read_status(job.run()).state, "completed");
  EXPECT_NE(job.log().find("writing a checkpoint takes long"), std::string::npos) << job.log();
}

class RankSignals : public ::testing::TestWithParam<int> {};

// As srun, scancel or a person sends them; whoever started the ranks.
TEST_P(RankSignals, ToOneRankStopAllInOrder) {
  for (const bool launched : {true, false}) {
    Job job(2);
    job.start(launched ? job.fit() : mpirun(2, job.fit()));
    ASSERT_TRUE(job.in_training()) << job.process().output();
    send_signal(job.rank(1), GetParam());
    job.expect_stopped_in_order();
  }
}

TEST_P(RankSignals, ToAllOfThemSeveralTimesAreOneWish) {
  Job job(2);
  job.start(mpirun(2, job.fit()));
  ASSERT_TRUE(job.in_training()) << job.process().output();
  const pid_t ranks[] = {job.rank(0), job.rank(1)};
  for (int signal : {GetParam(), SIGTERM, GetParam()})
    for (pid_t rank : ranks) send_signal(rank, signal);
  job.expect_stopped_in_order();
}
INSTANTIATE_TEST_SUITE_P(All, RankSignals, ::testing::Values(SIGUSR1, SIGHUP, SIGTERM, SIGINT));

TEST(RankSignal, OfATerminalThatIsClosedIsIgnoredUnderNohup) {
  Job job(1);
  std::vector<std::string> command = {"sh", "-c", "trap '' HUP; exec \"$@\"", "sh"};
  for (const std::string& word : job.fit()) command.push_back(word);
  job.start(command);
  ASSERT_TRUE(job.in_training()) << job.process().output();
  job.process().signal(SIGHUP);
  const int64_t step = read_status(job.run()).step;
  EXPECT_TRUE(eventually([&] { return read_status(job.run()).step > step; })) << job.process().output();
  job.process().signal(SIGTERM);
  job.expect_stopped_in_order();
}

}  // namespace
}  // namespace lockstep::testing::ranks_test
