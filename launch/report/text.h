// SPDX-License-Identifier: Apache-2.0
// Text and numbers for a page.
#pragma once

#include <string>
#include <string_view>

namespace lockstep::report {

// For an element or a quoted attribute: what would be markup is escaped, what is no UTF-8 or a control character becomes U+FFFD.
std::string html(std::string_view text);

// Six digits at most, and k, M, G or T from 10,000 to 1e15: "0.25", "93.5k".
std::string short_number(double value);

}  // namespace lockstep::report
