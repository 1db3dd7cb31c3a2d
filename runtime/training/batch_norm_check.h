// SPDX-License-Identifier: Apache-2.0
// Whether batches are large enough for batch norm, whose variance needs two values a channel.
#pragma once

#include <string>

#include "runtime/graph/graph.h"
#include "runtime/training/schedule.h"

namespace lockstep {

// `forward`: the model while it trains. Statistics cover a micro-batch over all ranks, and every pixel. Error
// config (78) E_BATCH_NORM where a whole batch gives a layer one value a channel. What to warn of where only
// the short last batch of an epoch does; else "".
std::string check_batch_norm(const Graph& forward, const Schedule& schedule);

}  // namespace lockstep
