// SPDX-License-Identifier: Apache-2.0
// The launcher where its ranks, their hosts or mpirun do not do what they should: it ends, says who is to blame, and asks for
// another attempt (75) only where one can help.
#include <filesystem>
#include <thread>

#include "runtime/telemetry/run_folder.h"
#include "tests/distributed/launch.h"
#include "tests/support/files.h"

namespace lockstep::testing::launcher_faults_test {
namespace {

namespace fs = std::filesystem;

class Faults : public Launch {
 protected:
  // An executable in the test's folder.
  std::string script(const std::string& name, const std::string& text) const {
    write_file(folder_.file(name), "#!/bin/sh\n" + text);
    fs::permissions(folder_.file(name), fs::perms::owner_all);
    return folder_.file(name);
  }
  // The environment in which `mpirun` is this script.
  std::map<std::string, std::string> with_mpirun(const std::string& text) const {
    script("mpirun", text);
    return environment({{"PATH", folder_.path() + ":" + std::getenv("PATH")}});
  }
  // In which each rank does this before it becomes the program, "$@".
  std::map<std::string, std::string> with_ranks_that(const std::string& before) const {
    const std::string rank = script("rank", before + "\nexec \"$@\"\n");
    return with_mpirun("PATH=${PATH#*:}\nfor word do\n  shift\n  [ \"$word\" = " LOCKSTEP_BINARY
                       " ] && set -- \"$@\" " +
                       rank + "\n  set -- \"$@\" \"$word\"\ndone\nexec mpirun \"$@\"\n");
  }
  void expect(Process& p, int code, const std::vector<std::string>& words) const {
    EXPECT_EQ(p.wait(), code) << p.output();
    for (const std::string& word : words)
      EXPECT_NE(p.output().find(word), std::string::npos) << word << "\n" << p.output();
    EXPECT_TRUE(eventually([&] { return living().empty(); }));
  }
  // Why there cannot be two hosts; "": there can.
  static std::string only_one_host() {
    const std::string said = run({"mpirun", "--version"}).output;
    const size_t at = said.find("(Open MPI) ");
    if (at == std::string::npos || said[at + 11] < '5') return "";
    return "Open MPI 5 waits for ever where hosts are one machine; tests/clusters/ssh.py has two";
  }
  // Two hosts, of which the second is this machine by another name, reached by a script in ssh's place.
  std::map<std::string, std::string> two_hosts() const {
    const std::string agent =
        script("agent", "[ -e " + folder_.file("down") + " ] && exit 255\nshift\nexec sh -c \"$*\"\n");
    return environment({{"OMPI_MCA_plm_rsh_agent", agent},
                        {"OMPI_MCA_oob_tcp_if_include", "lo"},
                        {"OMPI_MCA_btl_tcp_if_include", "lo"}});
  }
  static constexpr const char* kTwoHosts = "hosts=[\"localhost:1\", \"198.51.100.7:1\"]";
  // A rank that is on another host cannot reach the launcher's folder.
  static constexpr const char* kElsewhere = "export LOCKSTEP_REPORT=/nowhere";
};

TEST_F(Faults, AHostThatFallsSilentIsNamed) {
  if (const auto why = only_one_host(); !why.empty()) GTEST_SKIP() << why;
  Process p(endless({"--set", kTwoHosts, "--set", "deadline_seconds=3"}), two_hosts());
  ASSERT_TRUE(in_training()) << p.output();
  write_file(folder_.file("down"), "");
  // What a link that is down leaves: neither the rank there nor mpirun's daemon says a word.
  for (pid_t pid : living())
    if (const std::string program = program_of(pid);
        program == "orted" || program == "prted" || pid == rank_pid(1))
      ::kill(pid, SIGSTOP);
  expect(p, 75, {"E_PEER_LOST", "host 198.51.100.7 does not answer", "resume with: lockstep fit"});
  const Status s = read_status(run_);
  EXPECT_EQ(s.state, "failed");
  EXPECT_EQ(s.error_id, "E_PEER_LOST");
  EXPECT_NE(s.cause.find("198.51.100.7"), std::string::npos) << s.cause;
}

// mpirun loses its daemon there and ends the ranks of this host: they are not to blame, where they have time to stop in order and
// where they have not.
class AHostThatDies : public Faults, public ::testing::WithParamInterface<bool> {};
TEST_P(AHostThatDies, IsNamed) {
  if (const auto why = only_one_host(); !why.empty()) GTEST_SKIP() << why;
  const bool answers = GetParam();  // ssh, afterwards
  Process p(endless({"--set", kTwoHosts, "--set", "deadline_seconds=3"}), two_hosts());
  ASSERT_TRUE(in_training()) << p.output();
  if (!answers) write_file(folder_.file("down"), "");
  for (pid_t pid : living())
    if (const std::string program = program_of(pid);
        program == "orted" || program == "prted" || pid == rank_pid(1))
      ::kill(pid, SIGKILL);
  const std::string what = answers ? "mpirun's daemon there is gone" : "host 198.51.100.7 does not answer";
  expect(p, 75, {"resume with: lockstep fit"});
  EXPECT_EQ(p.output().find("E_RANK_LOST"), std::string::npos) << p.output();
  const Status status = read_status(run_);
  if (status.state == "interrupted") return;
  for (const std::string& word : {std::string("error[E_PEER_LOST] host=198.51.100.7"), what})
    EXPECT_NE(p.output().find(word), std::string::npos) << word << "\n" << p.output();
  EXPECT_EQ(status.error_id, "E_PEER_LOST");
}
INSTANTIATE_TEST_SUITE_P(Faults, AHostThatDies, ::testing::Bool());

// Without a launcher of ours nobody else does.
TEST_F(Faults, RankZeroNotesALostPeer) {
  Process p(mpirun(2, endless({"--set", "deadline_seconds=2"})), environment());
  ASSERT_TRUE(in_training()) << p.output();
  send_signal(rank_pid(1), SIGSTOP);
  EXPECT_TRUE(eventually([&] { return read_status(run_).state == "failed"; })) << p.output();
  EXPECT_EQ(read_status(run_).error_id, "E_PEER_LOST");
  EXPECT_GE(read_status(run_).step, 50);
}

const std::vector<std::string> kSoon = {"--set", "start_deadline_seconds=3"};

TEST_F(Faults, ARankThatIsStoppedWhileItStarts) {
  Process p(fit(kSoon), with_ranks_that("[ $OMPI_COMM_WORLD_RANK = 1 ] && kill -STOP $$"));
  expect(p, 75,
         {"E_START_DEADLINE", "rank 1 (pid ", "is stopped", "rank 1 has not begun", "start the job again"});
  EXPECT_FALSE(fs::exists(run_));
}

TEST_F(Faults, AnMpirunThatIsStoppedWhileItStarts) {
  Process p(fit(kSoon), with_mpirun("kill -STOP $$"));
  expect(p, 75, {"E_START_DEADLINE", "mpirun (pid ", "is stopped", "ranks 0, 1 have not begun"});
}

TEST_F(Faults, AHostThatDoesNotAnswerAtTheStart) {
  if (const auto why = only_one_host(); !why.empty()) GTEST_SKIP() << why;
  write_file(folder_.file("down"), "");
  auto e = two_hosts();
  script("agent", "case \"$*\" in *lockstep-is-here*) exit 255;; esac\nsleep 1000\n");
  Process p(fit({"--set", kTwoHosts, "--set", "start_deadline_seconds=1"}), e);
  expect(p, 75, {"E_START_DEADLINE", "within 2 s", "host 198.51.100.7 does not answer"});
}

TEST_F(Faults, AnMpirunThatIsStoppedInTraining) {
  Process p(endless({"--set", "deadline_seconds=3"}), environment());
  ASSERT_TRUE(in_training()) << p.output();
  for (pid_t m : living())
    if (m != p.pid() && m != rank_pid(0) && m != rank_pid(1)) ::kill(m, SIGSTOP);
  expect(p, 75, {"E_MPIRUN_LOST", "has been stopped for 3 s", "resume with"});
  EXPECT_EQ(read_status(run_).state, "failed");
}

// It goes on where it is continued in time.
TEST_F(Faults, AnMpirunThatIsStoppedForAMoment) {
  Process p(endless({"--set", "deadline_seconds=60"}), environment());
  ASSERT_TRUE(in_training()) << p.output();
  for (const int signal : {SIGSTOP, SIGCONT})
    for (pid_t m : living())
      if (m != p.pid() && m != rank_pid(0) && m != rank_pid(1)) ::kill(m, signal);
  p.signal(SIGTERM);
  expect(p, 75, {});
  EXPECT_EQ(read_status(run_).state, "interrupted");
}

TEST_F(Faults, AnMpirunThatStartsNothingIsNoSuccess) {
  const std::string nothing = "[ $1 = --version ] && echo 'mpirun (Open MPI) 4.1.4'\nexit 0\n";
  Process p(fit(), with_mpirun(nothing));
  expect(p, 69, {"E_MPIRUN]", "could not start the ranks"});
  EXPECT_FALSE(fs::exists(run_));
  // Of a run that is there it says no more.
  Process first(fit(), environment());
  expect(first, 0, {});
  Process again(fit({"--resume", "--set", "hyperparameters.steps=8"}), with_mpirun(nothing));
  expect(again, 69, {"E_MPIRUN]"});
  // Ranks that say nothing have not done the last step.
  Process silent(fit({"--resume", "--set", "hyperparameters.steps=8"}), with_ranks_that("exit 0"));
  expect(silent, 69, {"E_MPIRUN]"});
}

TEST_F(Faults, OnlyWhatCanBeResumedIsTriedAgain) {
  // An older run is not this one.
  const std::vector<std::string> numbered = {LOCKSTEP_BINARY, "fit", folder_.file("job.yaml"), "--set",
                                             "output.dir=" + folder_.file("runs")};
  Process older(numbered, environment());
  expect(older, 0, {});
  Process killed(numbered, with_ranks_that("[ $OMPI_COMM_WORLD_RANK = 1 ] && kill -9 $$"));
  expect(killed, 69, {"rank 1"});  // mpirun does not always say what ended it
  EXPECT_EQ(killed.output().find("--resume"), std::string::npos) << killed.output();
  EXPECT_FALSE(fs::exists(folder_.file("runs/tiny-002")));
  Process missing(numbered, with_ranks_that("exec /no/such/program"));
  EXPECT_EQ(missing.wait(), 69) << missing.output();
  EXPECT_EQ(missing.output().find("--resume"), std::string::npos) << missing.output();

  auto resumed = numbered;
  resumed.insert(resumed.end(), {"--resume", "--set", "hyperparameters.steps=8"});
  Process again(resumed, with_ranks_that("[ $OMPI_COMM_WORLD_RANK = 1 ] && kill -9 $$"));
  expect(again, 75, {"rank 1 ended", "resume with: lockstep fit"});
}

// Ranks on other hosts report through mpirun.
TEST_F(Faults, RanksElsewhereAreKnownToo) {
  Process p(fit(), with_ranks_that(kElsewhere));
  expect(p, 0, {"Run folder"});
  EXPECT_EQ(p.output().find("lockstep-report"), std::string::npos) << p.output();
  EXPECT_EQ(read_status(run_).state, "completed");
  Process again(fit(), with_ranks_that(kElsewhere));
  expect(again, 73, {"E_RUN_EXISTS"});
}

TEST_F(Faults, RanksElsewhereStopInOrder) {
  Process p(endless(), with_ranks_that(kElsewhere));
  ASSERT_TRUE(in_training()) << p.output();
  p.signal(SIGTERM);
  expect(p, 75, {"stopped at step"});
  EXPECT_EQ(read_status(run_).state, "interrupted");
}

TEST_F(Faults, ARankElsewhereThatIsLostIsResumed) {
  Process p(endless(), with_ranks_that(kElsewhere));
  ASSERT_TRUE(in_training()) << p.output();
  send_signal(rank_pid(1), SIGKILL);
  expect(p, 75, {"rank 1 ended by signal 9", "resume with: lockstep fit"});
}

}  // namespace
}  // namespace lockstep::testing::launcher_faults_test
