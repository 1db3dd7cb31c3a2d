// SPDX-License-Identifier: Apache-2.0
// Before the first step: ranks agree on what they are given, and what fails leaves no run folder.
#include <filesystem>

#include "launch/launcher/outcome.h"
#include "launch/launcher/report.h"
#include "runtime/telemetry/run_folder.h"
#include "tests/launch/job_support.h"
#include "tests/launch/small_run.h"
#include "tests/support/other_build.h"

namespace lockstep::testing {
namespace {

namespace fs = std::filesystem;

class RanksBegin : public SmallRun {
 protected:
  // Two ranks, each in a folder of its own, with paths that name what lies there.
  Outcome fit_in(const std::string& a, const std::string& b, const std::string& more, const std::string& run,
                 const std::string& second = LOCKSTEP_BINARY) const {
    const std::string fit = fmt::format(" fit {} --set instance_count=2 {} --output {}",
                                        folder_.file("job.yaml"), more, folder_.file(run));
    // By a script, as mpirun of Open MPI 5.0.7 crashes where it is given two programs.
    write_file(
        folder_.file("rank.sh"),
        fmt::format("if [ $OMPI_COMM_WORLD_RANK = 0 ]; then cd '{}'; exec {}{}; fi; cd '{}'; exec {}{}\n",
                    folder_.file(a), LOCKSTEP_BINARY, fit, folder_.file(b), second, fit));
    return shell(mpirun(2) + "sh rank.sh");
  }
  void SetUp() override {
    SmallRun::SetUp();
    for (const char* name : {"a", "b", "c"}) fs::create_directories(folder_.file(name));
    write_set("a/"), write_set("b/", 38), write_set("c/");
  }
  static constexpr const char* kOwnData = "--set inputs.training.path=/proc/self/cwd";
};

TEST_F(RanksBegin, WithTheSameData) {
  expect(fit_in("a", "b", kOwnData, "run"), Exit::disagree, "E_RANKS_DISAGREE",
         "inputs.training (/proc/self/cwd) differs", "inputs.test (/proc/self/cwd) differs", "on rank 0",
         "on rank 1");
  EXPECT_FALSE(fs::exists(folder_.file("run")));
  expect(fit_in("a", "c", kOwnData, "run"), Exit::ok);
}

TEST_F(RanksBegin, WithTheSameWeights) {
  expect(lockstep("fit job.yaml --output first"), Exit::ok);
  const std::string weights = read_file(folder_.file("first/model.safetensors"));
  std::string other = weights;
  other.back() = static_cast<char>(other.back() ^ 1);
  write_file(folder_.file("a/w.safetensors"), weights);
  write_file(folder_.file("b/w.safetensors"), other);
  const std::string from = "--set model.init_from=/proc/self/cwd/w.safetensors";
  expect(fit_in("a", "b", from, "run"), Exit::disagree, "init_from (/proc/self/cwd/w.safetensors) differs",
         "on rank 1");
  // Rank 0 reads them for all.
  expect(fit_in("a", "c", from, "run"), Exit::ok);
}

TEST_F(RanksBegin, WithTheSameBuild) {
  const std::string other = folder_.file("lockstep");
  if (!make_other_build(LOCKSTEP_BINARY, other)) GTEST_SKIP() << "the linker writes no build id here";
  expect(fit_in("a", "a", "", "run", other), Exit::disagree, "build differs", "on rank 0", "on rank 1");
}

using NothingLeft = SmallRun;

TEST_F(NothingLeft, OfAFitThatFailsBeforeItsFirstStep) {
  for (const std::string ranks : {" --set instance_count=1", " --set instance_count=2"}) {
    const std::string bad = " --set model.init_from=nowhere" + ranks;
    expect(lockstep("fit job.yaml --output deep/er/run" + bad), Exit::no_input);
    EXPECT_FALSE(fs::exists(folder_.file("deep")));
    expect(lockstep("fit job.yaml" + bad), Exit::no_input);
    EXPECT_FALSE(fs::exists(folder_.file("runs")));
    // What was there before stays.
    fs::create_directories(folder_.file("mine"));
    write_file(folder_.file("mine/notes"), "x");
    expect(lockstep("fit job.yaml --output mine" + bad), Exit::no_input);
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_.file("mine")), {}), 1);
    expect(lockstep("fit job.yaml --output mine" + ranks), Exit::ok);
    fs::remove_all(folder_.file("mine"));
  }
  expect(lockstep("fit job.yaml"), Exit::ok);
  expect(lockstep("fit job.yaml --set model.init_from=nowhere"), Exit::no_input);
  EXPECT_TRUE(fs::exists(folder_.file("runs/test-001")));
  EXPECT_FALSE(fs::exists(folder_.file("runs/test-002")));
}

// Where a rank fails alone, rank 0 is ended with it: the launcher clears up.
TEST_F(NothingLeft, OfRanksThatDoNotComeToTheirFirstStep) {
  const Job job = read_job(folder_.file("job.yaml"), {"instance_count=2"});
  for (const bool begun : {false, true})
    for (const bool is_new : {true, false}) {
      const TestFolder reports;
      ::setenv("LOCKSTEP_REPORT", reports.path().c_str(), 1);
      const std::string path = folder_.file("some/run");
      {
        const RunFolder run = RunFolder::create("", "", path);
        write_status(path, {});
        RankReport zero(0), one(1);
        zero.run_folder(path, is_new, run.made());
        if (begun) zero.step(0);
        one.exit_code(70);
      }
      ::unsetenv("LOCKSTEP_REPORT");
      MpirunNoise noise([](std::string_view) {});
      Ending ending;
      ending.mpirun_status = 70 << 8;
      EXPECT_EQ(conclude(reports.path(), job, ending, noise, "mpirun", {}), 70);
      const bool stays = begun || !is_new;
      EXPECT_EQ(fs::exists(folder_.file("some")), stays);
      if (stays) {
        EXPECT_EQ(read_status(path).state, "failed");
      }
      fs::remove_all(folder_.file("some"));
    }
}

}  // namespace
}  // namespace lockstep::testing
