// SPDX-License-Identifier: Apache-2.0
// What a run says to the person who started it, who may have closed the terminal or the pipe since.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string_view>
#include <utility>

#include "kernels/core/error.h"

namespace lockstep {

// Writes lines to stdout or stderr, and flushes; what they name cannot order a terminal about (shown_lines). Never throws:
// where nothing can be written any more the log says so once, and the run goes on. False: it was not written.
bool say(std::FILE* out, std::string_view text);
// The same of text that has colours and moves the cursor: names in it have been made printable().
bool say_styled(std::FILE* out, std::string_view text);
// Whether say() could not write there: who said it has gone on, and its exit code is its own.
bool went_on_without(std::FILE* out);

// What a command was asked for, on stdout, where it must arrive: else output_error() is thrown.
void put_out(std::string_view text);
template <class... Values>
void print_out(fmt::format_string<Values...> format, Values&&... values) {
  put_out(fmt::format(format, std::forward<Values>(values)...));
}
Error output_error();

}  // namespace lockstep
