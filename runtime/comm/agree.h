// SPDX-License-Identifier: Apache-2.0
// Start-up agreement: ranks compare what must be equal on all of them and stop with 76 naming what differs.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/comm/communicator.h"

namespace lockstep {

// `facts` are (what, value): {"resolved job", hash}, {"parameter layout", hash}, {"kernel table", hash},
// {"collective schedule", hash}. Throws Error(Exit::disagree, "E_RANKS_DISAGREE") on every rank, naming each
// fact that differs, both values and the ranks that hold them. A rank that has nothing to say of a fact ("") agrees.
void require_agreement(Communicator& comm, const std::vector<std::pair<std::string, std::string>>& facts);

}  // namespace lockstep
