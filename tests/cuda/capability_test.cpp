// SPDX-License-Identifier: Apache-2.0
// Which GPUs a list of architectures serves.
#include "runtime/cuda/capability.h"

#include <gtest/gtest.h>

namespace lockstep::testing::capability_test {
namespace {

TEST(CudaCapability, MachineCodeServesLaterMinorsAndPtxAllThatIsLater) {
  struct Row {
    const char* built;
    std::vector<int> runs, fails;
  };
  for (const Row& row :
       std::vector<Row>{{"90a-real", {90}, {80, 89, 91, 100, 120}},
                        {"90a", {90}, {80, 100}},
                        {"80-real", {80, 86, 89}, {75, 90, 100}},
                        {"86-real", {86, 89}, {80, 90}},
                        {"90-virtual", {90, 100, 120}, {80, 89}},
                        {"100", {100, 103, 120}, {90}},
                        {"100f-real", {100, 103}, {90, 120}},
                        {"80-real 90a-real 100-real 100-virtual", {80, 86, 90, 100, 120}, {75}},
                        {"", {}, {80, 90}}}) {
    SCOPED_TRACE(row.built);
    for (int capability : row.runs) EXPECT_TRUE(runs_on(row.built, capability)) << capability;
    for (int capability : row.fails) EXPECT_FALSE(runs_on(row.built, capability)) << capability;
  }
}

}  // namespace
}  // namespace lockstep::testing::capability_test
