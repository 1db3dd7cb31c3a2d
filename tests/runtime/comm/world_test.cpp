#include "tests/runtime/comm/world.h"

#include <gtest/gtest.h>

namespace lockstep::testing {
namespace {

std::unique_ptr<Communicator> communicator;

// MPI must be finalised before main returns.
class Closing : public ::testing::Environment {
  void TearDown() override { communicator.reset(); }
};
[[maybe_unused]] const auto* const closing = ::testing::AddGlobalTestEnvironment(new Closing);

}  // namespace

Communicator& world() {
  if (!communicator)
    communicator = launcher_environment().present ? make_mpi_communicator({.deadline_seconds = 60})
                                                  : make_self_communicator();
  return *communicator;
}

TEST(World, HasTheSizeThatTheLauncherSays) {
  const auto e = launcher_environment();
  EXPECT_EQ(world().size(), e.size);
  EXPECT_EQ(world().rank(), e.rank);
}

}  // namespace lockstep::testing
