// SPDX-License-Identifier: Apache-2.0
// A page about runs: one HTML file that loads nothing and runs no script.
#pragma once

#include <span>
#include <string>

#include "launch/report/run_record.h"

namespace lockstep::report {

inline constexpr size_t kMostRuns = 8;  // as many colours as can be told apart

// Of kMostRuns at most. Curves lie over each other, tables have a column a run; what no run has is left out.
std::string page(std::span<const RunRecord> runs);

}  // namespace lockstep::report
