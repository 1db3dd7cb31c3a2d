// SPDX-License-Identifier: Apache-2.0
// What a run says to the person who started it, who may have closed the terminal or the pipe since.
#pragma once

#include <cstdio>
#include <string_view>

namespace lockstep {

// Writes to stdout or stderr, and flushes. Never throws: where nothing can be written any more the log says so once, and
// the run goes on. False: it was not written.
bool say(std::FILE* out, std::string_view text);
// Whether say() could not write there: who said it has gone on, and its exit code is its own.
bool went_on_without(std::FILE* out);

}  // namespace lockstep
