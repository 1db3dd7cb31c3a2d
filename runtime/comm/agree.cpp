// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/agree.h"

#include <map>

#include "runtime/comm/together.h"

namespace lockstep {

void require_agreement(Communicator& comm, const std::vector<std::pair<std::string, std::string>>& facts) {
  std::string differences;
  for (const auto& [what, value] : facts) {
    std::map<std::string, std::vector<int>> holders;
    const auto values = comm.gather_text(value);
    for (size_t r = 0; r < values.size(); ++r)
      if (!values[r].empty()) holders[values[r]].push_back(static_cast<int>(r));
    if (holders.size() <= 1) continue;
    differences += fmt::format("{}{} differs:", differences.empty() ? "" : "; ", what);
    bool first = true;
    for (const auto& [v, ranks] : holders) {
      differences += fmt::format("{} {} on rank", first ? "" : ",", v);
      for (size_t i = 0; i < ranks.size(); ++i)
        differences += fmt::format("{} {}", i ? "," : (ranks.size() > 1 ? "s" : ""), ranks[i]);
      first = false;
    }
  }
  if (!differences.empty())
    throw AgreedError(Error(Exit::disagree, "E_RANKS_DISAGREE", differences)
                          .hint("all ranks must start with the same job file, data and build"));
}

}  // namespace lockstep
