// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/cards.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/core/error.h"
#include "tests/runtime/comm/world.h"

namespace lockstep::testing::cards_test {
namespace {

const Card kFirst = {"boot-1", "alpha", "GPU-01", "0000:1b:00"},
           kSecond = {"boot-1", "alpha", "GPU-02", "0000:1c:00"};

Card with(Card c, const std::string& machine, const std::string& uuid, const std::string& pci) {
  c.machine = machine, c.uuid = uuid, c.pci = pci;
  return c;
}

TEST(Cards, OneForEachRank) {
  const Card elsewhere = with(kFirst, "boot-2", "GPU-03", kFirst.pci);  // virtual machines look alike
  EXPECT_FALSE(shared_card(std::vector{kFirst, kSecond, elsewhere}));
  const std::string problem = shared_card(std::vector{kFirst, kSecond, elsewhere, kSecond}).value_or("");
  EXPECT_EQ(problem,
            "ranks 1 and 3 have one GPU, GPU-02 at 0000:1c:00 of host alpha, but NCCL wants one for each");
  EXPECT_NE(shared_card(std::vector{kFirst, kFirst, kFirst}).value_or("").find("ranks 0 and 1, 2 have"),
            std::string::npos);
}

TEST(Cards, ByPlaceWhereTheUuidDoesNotTell) {
  const Card nameless = with(kFirst, "boot-1", "", kFirst.pci);
  EXPECT_FALSE(shared_card(std::vector{nameless, with(kSecond, "boot-1", "", kSecond.pci)}));
  EXPECT_TRUE(shared_card(std::vector{nameless, nameless}));
  // Parts of one card, which NCCL takes for the same.
  EXPECT_TRUE(shared_card(std::vector{kFirst, with(kFirst, "boot-1", "GPU-09", kFirst.pci)}));
  // A container that sees its card in another place.
  EXPECT_TRUE(shared_card(std::vector{kFirst, with(kFirst, "boot-1", kFirst.uuid, "0000:00:05")}));
}

TEST(Cards, EveryRankIsTold) {
  Communicator& comm = world();
  Card mine = card_of_this_machine();
  EXPECT_FALSE(mine.machine.empty());
  EXPECT_FALSE(mine.host.empty());
  mine.pci = std::to_string(comm.rank());
  require_own_cards(comm, mine);
  if (comm.size() == 1) return;
  mine.pci = "0000:1b:00";
  try {
    require_own_cards(comm, mine);
    FAIL() << "shared by all";
  } catch (const Error& e) {
    EXPECT_EQ(e.exit(), Exit::disagree);
    EXPECT_NE(e.message().find("ranks 0 and 1"), std::string::npos) << e.message();
    EXPECT_NE(e.message().find("0000:1b:00 of host " + mine.host), std::string::npos) << e.message();
  }
}

}  // namespace
}  // namespace lockstep::testing::cards_test
