// SPDX-License-Identifier: Apache-2.0
#include "launch/report/text.h"

#include <fmt/format.h>

#include <cmath>

#include "runtime/files/json_text.h"

namespace lockstep::report {

std::string html(std::string_view text) {
  std::string out;
  for (const char c : utf8_text(std::string(text))) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default: {
        const auto u = static_cast<unsigned char>(c);
        const bool control = (u < 0x20 && c != '\n' && c != '\t') || u == 0x7f;
        if (control)
          out += "\uFFFD";
        else
          out += c;
      }
    }
  }
  return out;
}

std::string short_number(double value) {
  double scaled = value;
  const char* suffix = "";
  if (std::fabs(value) >= 1e4 && std::fabs(value) < 1e15)
    for (const char* larger : {"k", "M", "G", "T"}) {
      if (std::fabs(scaled) < 999.95) break;  // in four digits
      scaled /= 1000, suffix = larger;
    }
  return fmt::format("{:.{}g}{}", scaled == 0 ? 0.0 : scaled, *suffix == '\0' ? 6 : 4, suffix);  // no "-0"
}

}  // namespace lockstep::report
