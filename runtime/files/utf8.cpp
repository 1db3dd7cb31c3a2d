// SPDX-License-Identifier: Apache-2.0
#include "runtime/files/utf8.h"

#include <fmt/format.h>

namespace lockstep {

// Unicode 15, table 3-7.
size_t find_invalid_utf8(std::string_view s) {
  for (size_t i = 0; i < s.size();) {
    const auto lead = static_cast<unsigned char>(s[i]);
    size_t length = lead < 0x80   ? 1
                    : lead < 0xc2 ? 0
                    : lead < 0xe0 ? 2
                    : lead < 0xf0 ? 3
                    : lead < 0xf5 ? 4
                                  : 0;
    if (length == 0 || i + length > s.size()) return i;
    for (size_t k = 1; k < length; ++k) {
      const auto c = static_cast<unsigned char>(s[i + k]);
      unsigned low = 0x80, high = 0xbf;
      if (k == 1 && lead == 0xe0) low = 0xa0;
      if (k == 1 && lead == 0xed) high = 0x9f;
      if (k == 1 && lead == 0xf0) low = 0x90;
      if (k == 1 && lead == 0xf4) high = 0x8f;
      if (c < low || c > high) return i;
    }
    i += length;
  }
  return std::string_view::npos;
}

std::string escape_invalid_utf8(std::string_view s) {
  std::string text;
  for (size_t bad = 0; (bad = find_invalid_utf8(s)) != std::string_view::npos; s.remove_prefix(bad + 1)) {
    text += s.substr(0, bad);
    text += fmt::format("\\x{:02x}", static_cast<unsigned char>(s[bad]));
  }
  return text += s;
}

namespace {

// What a terminal may take for an order becomes text: control characters, C1's too (U+009B begins one), and bytes that are no
// UTF-8, among which an 8-bit terminal sees them.
std::string escape_controls(std::string_view s, bool lines) {
  std::string out;
  const std::string text = escape_invalid_utf8(s);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto u = static_cast<unsigned char>(text[i]);
    const bool ends_line = u == '\n' || (u == '\r' && i + 1 < text.size() && text[i + 1] == '\n');
    const bool c1 = u == 0xc2 && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (lines && (ends_line || u == '\t'))
      out += text[i];
    else if (c1)
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[++i]));
    else if (u < 0x20 || u == 0x7f)
      out += fmt::format("\\x{:02x}", u);
    else
      out += text[i];
  }
  return out;
}

}  // namespace

std::string shown_lines(std::string_view text) { return escape_controls(text, true); }

std::string printable(std::string_view text, size_t longest) {
  size_t end = text.size();
  if (end > longest) {
    end = longest;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;  // whole characters only
  }
  return escape_controls(text.substr(0, end), false) + (end < text.size() ? "..." : "");
}

}  // namespace lockstep
