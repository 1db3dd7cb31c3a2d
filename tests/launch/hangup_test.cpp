// SPDX-License-Identifier: Apache-2.0
#include "launch/hangup.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>

#include "tests/support/process.h"

namespace lockstep::testing {
namespace {

constexpr const char* kExpected = "LOCKSTEP_TEST_HANGUP";

// As a library's does. The other tests of this program, and what they start, have the signal as it was.
__attribute__((constructor)) void take_hangup() {
  std::signal(SIGHUP, [](int) {});
  const char* expected = std::getenv(kExpected);
  if (!expected) return restore_hangup();
  if (std::string(expected) == "kept") std::raise(SIGHUP);
}

// This program again, started by nohup and without.
TEST(Hangup, IsAsTheProgramWasStartedWhateverConstructorsDo) {
  if (const char* expected = std::getenv(kExpected)) {
    restore_hangup();
    EXPECT_EQ(std::signal(SIGHUP, SIG_DFL) == SIG_IGN, std::string(expected) == "ignored");
    return;
  }
  const std::string self =
      std::filesystem::read_symlink("/proc/self/exe").string() + " --gtest_filter='Hangup.IsAs*'";
  for (const std::string how : {"ignored", "default"}) {
    const Ended e =
        run({"sh", "-c", (how == "ignored" ? "trap '' HUP; exec " : "exec ") + self}, {{kExpected, how}});
    EXPECT_EQ(e.code, 0) << how << "\n" << e.output;
  }
}

TEST(Hangup, IsNotLostWhereAConstructorHasIt) {
  const std::string self =
      std::filesystem::read_symlink("/proc/self/exe").string() + " --gtest_filter='Hangup.IsAs*'";
  const Ended e = run({"sh", "-c", "exec " + self}, {{kExpected, "kept"}});
  EXPECT_EQ(e.code, 128 + SIGHUP) << e.output;
}

}  // namespace
}  // namespace lockstep::testing
