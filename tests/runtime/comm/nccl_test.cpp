// SPDX-License-Identifier: Apache-2.0
// NCCL itself, as far as a machine without a GPU has it.
#include <gtest/gtest.h>

#include "runtime/comm/device_collectives.h"

namespace lockstep::testing::nccl_test {
namespace {

// A build that has found it loads it, with every entry point that we call.
TEST(Nccl, IsLoadedWhenAskedFor) {
  EXPECT_EQ(has_nccl(), built_with_nccl()) << nccl_description();
  const std::string expected = built_with_nccl() ? "NCCL 2." : "this build has no NCCL";
  EXPECT_EQ(nccl_description().substr(0, expected.size()), expected);
}

}  // namespace
}  // namespace lockstep::testing::nccl_test
