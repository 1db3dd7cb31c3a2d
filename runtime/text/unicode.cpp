// SPDX-License-Identifier: Apache-2.0
#include "runtime/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>

#include "kernels/core/error.h"

namespace lockstep {
namespace {

// The code point at text[at] and how many bytes it has; fewer than 1: none is there.
utf8proc_ssize_t code_point(std::string_view text, size_t at, utf8proc_int32_t& c) {
  return utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                          static_cast<utf8proc_ssize_t>(text.size() - at), &c);
}

int combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

// Canonical order: marks behind a letter by their class, those of one class as they stand. utf8proc's own decomposition of
// a whole string sorts by neighbours, which is quadratic in marks.
void sort_marks(std::vector<utf8proc_int32_t>& points) {
  for (auto at = points.begin(); at != points.end();) {
    const auto is_mark = [](utf8proc_int32_t c) { return combining_class(c) != 0; };
    const auto first = std::find_if(at, points.end(), is_mark);
    at = std::find_if_not(first, points.end(), is_mark);
    std::stable_sort(first, at, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
  }
}

}  // namespace

std::optional<size_t> first_bad_utf8(std::string_view bytes) {
  for (size_t at = 0; at < bytes.size();) {
    utf8proc_int32_t c = 0;
    const utf8proc_ssize_t n = code_point(bytes, at, c);
    if (n < 1) return at;
    at += static_cast<size_t>(n);
  }
  return std::nullopt;
}

std::vector<char32_t> nfc(std::string_view utf8) {
  constexpr int kMostParts = 32;  // of one code point; Unicode's longest canonical decomposition has 4
  std::vector<utf8proc_int32_t> points;
  points.reserve(utf8.size());
  bool is_ascii = true;
  for (size_t at = 0; at < utf8.size();) {
    utf8proc_int32_t c = 0;
    const utf8proc_ssize_t n = code_point(utf8, at, c);
    LOCKSTEP_ASSERT(n >= 1, "no UTF-8 at byte {}", at);
    at += static_cast<size_t>(n);
    is_ascii = is_ascii && n == 1;
    utf8proc_int32_t parts[kMostParts];
    int boundary = 0;
    const auto count =
        n == 1 ? 0 : utf8proc_decompose_char(c, parts, kMostParts, UTF8PROC_DECOMPOSE, &boundary);
    LOCKSTEP_ASSERT(count <= kMostParts, "U+{:04X} has {} parts", c, count);
    if (count > 0)
      points.insert(points.end(), parts, parts + count);
    else
      points.push_back(c);
  }
  if (!is_ascii) {
    sort_marks(points);
    const utf8proc_ssize_t count =
        utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                                 static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    LOCKSTEP_ASSERT(count >= 0, "{}", utf8proc_errmsg(count));
    points.resize(static_cast<size_t>(count));
  }
  return {points.begin(), points.end()};
}

std::string nfc_text(std::string_view utf8) {
  std::string text;
  for (char32_t c : nfc(utf8)) append_utf8(c, text);
  return text;
}

void append_lower(char32_t c, std::vector<char32_t>& to) {
  constexpr char32_t kCapitalDottedI = 0x130, kDotAbove = 0x307;
  if (c == kCapitalDottedI) {
    to.push_back('i');
    to.push_back(kDotAbove);
  } else {
    to.push_back(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  }
}

CharClass char_class(char32_t c) {
  if ((c >= 0x09 && c <= 0x0D) || c == 0x85) return CharClass::space;  // control characters to Unicode
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return CharClass::space;
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::letter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::number;
    default:
      return CharClass::other;
  }
}

void append_utf8(char32_t c, std::string& to) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t n = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes);
  to.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(n));
}

}  // namespace lockstep
