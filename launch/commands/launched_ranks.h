// SPDX-License-Identifier: Apache-2.0
// A command that the ranks of somebody's launcher share.
#pragma once

#include <functional>

#include "runtime/comm/communicator.h"

namespace lockstep {

// Runs `work` on each of them and returns its exit code. A launcher ends all ranks when the first one leaves with a failure, so
// none leaves before rank 0 has said what all know (AgreedError) and what it has printed is written. A rank that fails alone
// says so itself, and takes the others along.
int on_launched_ranks(const std::function<int(Communicator&)>& work);

}  // namespace lockstep
