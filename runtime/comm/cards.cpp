// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/cards.h"

#include <fstream>
#include <sstream>
#include <vector>

#include "runtime/comm/together.h"
#include "runtime/files/host_name.h"

namespace lockstep {
namespace {

bool same_card(const Card& a, const Card& b) {
  return a.machine == b.machine && ((!a.uuid.empty() && a.uuid == b.uuid) || a.pci == b.pci);
}

std::string encode(const Card& c) { return c.machine + "\n" + c.host + "\n" + c.uuid + "\n" + c.pci + "\n"; }
Card decode(const std::string& text) {
  Card c;
  std::istringstream lines(text);
  for (std::string* field : {&c.machine, &c.host, &c.uuid, &c.pci}) std::getline(lines, *field);
  return c;
}

}  // namespace

Card card_of_this_machine() {
  Card c;
  c.host = host_name();
  // Containers of one machine differ in name and share this; machines may share a name.
  std::ifstream("/proc/sys/kernel/random/boot_id") >> c.machine;
  if (c.machine.empty()) c.machine = c.host;
  return c;
}

std::optional<std::string> shared_card(std::span<const Card> cards) {
  for (size_t first = 0; first < cards.size(); ++first) {
    const Card& card = cards[first];
    std::string others;
    for (size_t r = first + 1; r < cards.size(); ++r)
      if (same_card(card, cards[r])) others += fmt::format("{}{}", others.empty() ? " and " : ", ", r);
    if (!others.empty())
      return fmt::format("ranks {}{} have one GPU, {}{}{} of host {}, but NCCL wants one for each", first,
                         others, card.uuid, card.uuid.empty() ? "" : " at ", card.pci, card.host);
  }
  return {};
}

void require_own_cards(Communicator& comm, const Card& mine) {
  std::vector<Card> cards;
  for (const std::string& text : comm.gather_text(encode(mine))) cards.push_back(decode(text));
  if (const auto problem = shared_card(cards))
    throw AgreedError(Error(Exit::disagree, "E_GPU_SHARED", *problem)
                          .hint("show each rank a GPU of its own (srun --gpus-per-task=1, "
                                "CUDA_VISIBLE_DEVICES), or all of them; backend: mpi lets ranks share one"));
}

}  // namespace lockstep
