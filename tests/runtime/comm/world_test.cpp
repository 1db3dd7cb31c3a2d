// SPDX-License-Identifier: Apache-2.0
#include "tests/runtime/comm/world.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace lockstep::testing {
namespace {

std::unique_ptr<Communicator> communicator;

// MPI must be finalised before main returns.
class Closing : public ::testing::Environment {
  void TearDown() override { communicator.reset(); }
};
[[maybe_unused]] const auto* const closing = ::testing::AddGlobalTestEnvironment(new Closing);

}  // namespace

bool has_fixed_order() { return !std::getenv("LOCKSTEP_TEST_ANY_ORDER"); }

Communicator& world() {
  if (!communicator)
    communicator = launcher_environment().present
                       ? make_mpi_communicator({.deadline_seconds = 600, .fixed_order = has_fixed_order()})
                       : make_self_communicator();
  return *communicator;
}

TEST(World, HasTheSizeThatTheLauncherSays) {
  const auto e = launcher_environment();
  EXPECT_EQ(world().size(), e.size);
  EXPECT_EQ(world().rank(), e.rank);
}

}  // namespace lockstep::testing
