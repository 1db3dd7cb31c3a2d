// SPDX-License-Identifier: Apache-2.0
// The process's log: spdlog's default logger, so that spdlog::info(...), warn, error work everywhere. It has
// the kernels' notices too.
#pragma once

#include <functional>
#include <string>

namespace lockstep {

inline constexpr const char* kLogName = "lockstep";  // of spdlog's logger, once the log is open

// Everything from info up goes to `file` (RUN/log.txt, appended to, which several ranks may share; empty:
// nowhere), a line at a time with UTC time, rank and level, in UTF-8 (other bytes and control characters as "\xf6"); warnings and errors go to stderr too, with the
// rank where there are several. A line that cannot be written (a full disk) is lost, said once on stderr.
// Errors: cannot_create (73). Call it again to change the file. No other thread may log meanwhile.
void open_log(const std::string& file, int rank, int ranks);

// While not empty, `sink` gets what would go to stderr (without line end): a live line on the same terminal
// must be redrawn around it. Called from any thread, one at a time; must not log itself.
void route_warnings(std::function<void(const std::string&)> sink);

}  // namespace lockstep
