// SPDX-License-Identifier: Apache-2.0
// What the program needs to start.
#include <gtest/gtest.h>

#include "tests/launch/small_run.h"
#include "tests/support/process.h"

namespace lockstep::testing {
namespace {

// A machine without NVIDIA's libraries starts it, whatever it was built with, and it looks for nothing in the
// toolkit of the machine that built it.
TEST(Program, NeedsNoLibraryOfAGpu) {
  const Ended e = run({"readelf", "--dynamic", "--wide", LOCKSTEP_BINARY});
  ASSERT_EQ(e.code, 0) << e.output;
  EXPECT_NE(e.output.find("(NEEDED)"), std::string::npos) << e.output;
  for (const char* word : {"libnccl", "libcuda", "libcudart", "libcudnn", "libcublas", "/cuda"})
    EXPECT_EQ(e.output.find(word), std::string::npos) << e.output;
}

// libgomp tells for how many turns a waiting thread spins. What the user says stands.
TEST(Program, LetsOpenMpsThreadsSleepWhereItComputes) {
  const auto turns = [](const std::string& command, const std::string& set) {
    const Ended e = run({"sh", "-c",
                         "unset OMP_WAIT_POLICY GOMP_SPINCOUNT; " + set +
                             " OMP_DISPLAY_ENV=verbose exec " LOCKSTEP_BINARY " " + command + " --help"});
    EXPECT_EQ(e.code, 0) << e.output;
    const std::string word = "GOMP_SPINCOUNT = '";
    const size_t at = e.output.rfind(word);
    EXPECT_NE(at, std::string::npos) << e.output;
    return at == std::string::npos
               ? ""
               : e.output.substr(at + word.size(), e.output.find('\'', at + word.size()) - at - word.size());
  };
  for (const char* command : {"evaluate", "plan", "predict", "sagemaker", "sample", "serve"}) {
    EXPECT_EQ(turns(command, ""), "1000") << command;
    EXPECT_EQ(turns(command, "GOMP_SPINCOUNT=77"), "77") << command;
  }
  EXPECT_NE(turns("sample", "OMP_WAIT_POLICY=active"), "1000");
  EXPECT_NE(turns("kernels", ""), "1000");
}

// A job's ranks, of its own and of another's launcher, and one alone. The launcher itself does not begin again.
TEST_F(SmallRun, RanksLetOpenMpsThreadsSleep) {
  const std::string program =
      "env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT OMP_DISPLAY_ENV=verbose " LOCKSTEP_BINARY " ";
  const auto count = [&](const std::string& command, const std::string& turns) {
    const Outcome o = shell(command);
    EXPECT_EQ(o.code, 0) << o.text;
    int found = 0;
    const std::string word = "GOMP_SPINCOUNT = '" + turns + "'";
    for (size_t at = 0; (at = o.text.find(word, at)) != std::string::npos; at += word.size()) ++found;
    return found;
  };
  const std::string one = "fit job.yaml --set hyperparameters.steps=1 --output ",
                    two = " --set instance_count=2";
  EXPECT_EQ(count(program + one + "alone", "1000"), 1);
  EXPECT_EQ(count(program + one + "ours" + two, "1000"), 2);
  EXPECT_EQ(count(mpirun(2) + program + one + "theirs" + two, "1000"), 2);
  EXPECT_EQ(count("env -u OMP_WAIT_POLICY GOMP_SPINCOUNT=77 OMP_DISPLAY_ENV=verbose " LOCKSTEP_BINARY " " +
                      one + "said" + two,
                  "77"),
            3);
}

}  // namespace
}  // namespace lockstep::testing
