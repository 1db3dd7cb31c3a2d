// SPDX-License-Identifier: Apache-2.0
// Which GPU each rank has taken: NCCL wants one of its own for every rank, however the launcher has dealt them
// (all of a host visible to each of its ranks, or one to each).
#pragma once

#include <optional>
#include <span>
#include <string>

#include "runtime/comm/communicator.h"

namespace lockstep {

struct Card {
  std::string machine;  // equal for all processes of one machine, and only for them
  std::string host;     // its name, for people
  std::string uuid;     // "GPU-8f1c33e0-..."; "": unknown
  std::string pci;      // "0000:1b:00"
};
// `machine` and `host` of this process.
Card card_of_this_machine();

// What is wrong where two ranks have one card: the same UUID, or the same place on one machine's bus, as
// parts of a divided card (MIG) have it. `cards` in rank order.
std::optional<std::string> shared_card(std::span<const Card> cards);
// Collective. Throws AgreedError(disagree, "E_GPU_SHARED") on every rank, which names ranks, host and card.
void require_own_cards(Communicator& comm, const Card& mine);

}  // namespace lockstep
