// SPDX-License-Identifier: Apache-2.0
// What the program needs to start.
#include <gtest/gtest.h>

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
  for (const char* command : {"evaluate", "fit", "plan", "predict", "sagemaker", "sample", "serve"}) {
    EXPECT_EQ(turns(command, ""), "1000") << command;
    EXPECT_EQ(turns(command, "GOMP_SPINCOUNT=77"), "77") << command;
  }
  EXPECT_NE(turns("sample", "OMP_WAIT_POLICY=active"), "1000");
  EXPECT_NE(turns("kernels", ""), "1000");
}

}  // namespace
}  // namespace lockstep::testing
