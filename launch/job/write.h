// SPDX-License-Identifier: Apache-2.0
// Values as YAML text, by the tables of keys.h.
#pragma once

#include <string>

#include "launch/job/keys.h"

namespace lockstep::job {

// The keys of an object that say something, as block YAML.
std::string block_text(const Table& table, void* object);
// In flow syntax: `0.05`, `[2, 3]`, `{match: "*.bias", frozen: true}`.
std::string flow_text(const Slot& slot);

}  // namespace lockstep::job
