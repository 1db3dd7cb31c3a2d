// SPDX-License-Identifier: Apache-2.0
// The control groups that bound this process.
#pragma once

#include <functional>
#include <string>

namespace lockstep {

// Calls `visit` for this process's group of a controller ("cpu", "memory") and every group above it: the
// group's folder, and whether it is of version 2.
void for_each_cgroup(const std::string& controller,
                     const std::function<void(const std::string&, bool)>& visit);

}  // namespace lockstep
