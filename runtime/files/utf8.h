// SPDX-License-Identifier: Apache-2.0
// Text that may be any bytes, as names of files are.
#pragma once

#include <string>
#include <string_view>

namespace lockstep {

// The offset of the first byte that is not part of well-formed UTF-8, or npos.
size_t find_invalid_utf8(std::string_view s);

// Every such byte as "\xf6", in text that is UTF-8 otherwise.
std::string escape_invalid_utf8(std::string_view s);

// Lines for a terminal or a log, whatever names of files, classes or hosts are in them: control characters but the ends of
// lines and tabs as "\x1b", and so what is no UTF-8. All that is said goes through it (say, print_out, the log).
std::string shown_lines(std::string_view text);

// User text for one line, of which it cannot make two; long text cut.
std::string printable(std::string_view text, size_t longest = std::string_view::npos);

}  // namespace lockstep
