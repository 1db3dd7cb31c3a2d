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

}  // namespace
}  // namespace lockstep::testing
