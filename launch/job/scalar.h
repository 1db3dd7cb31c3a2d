// SPDX-License-Identifier: Apache-2.0
// The typed rules for scalars, and how values are written so that they read back as the same value.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lockstep::job {

// Each returns "" and sets `out`, or returns what is wrong ("expected an integer").
// Integers: decimal, optional sign, no leading zero, no separators. Numbers: also fraction and exponent;
// finite. Booleans: true or false. A plain word for a string must not look like any of the others.
std::string parse_integer(std::string_view text, int64_t& out);
std::string parse_unsigned(std::string_view text, uint64_t& out);
std::string parse_number(std::string_view text, double& out);
std::string parse_boolean(std::string_view text, bool& out);
// What was meant by a word that the rules refuse, as they want it: "yes", "1e3", "1_000", "0,5". Empty: no idea.
std::string meant_boolean(std::string_view text);
std::string meant_number(std::string_view text, bool integer);
// Would the word read as a number or boolean if it weren't for the key's type?
bool looks_typed(std::string_view word);

std::string number_text(double value);              // shortest text that reads back as the same double
std::string string_text(const std::string& value);  // plain where that is safe, else double-quoted

}  // namespace lockstep::job
