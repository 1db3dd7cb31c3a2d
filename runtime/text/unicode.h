// SPDX-License-Identifier: Apache-2.0
// What a tokenizer asks of Unicode, by libutf8proc: the version of Unicode is that library's, so code points that are younger
// count as unassigned.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep {

// The offset of the first byte that is no UTF-8 (overlong forms and surrogates are none); none: all of it is.
std::optional<size_t> first_bad_utf8(std::string_view bytes);

// Code points of valid UTF-8 in normal form C. Takes linear time but for sorting the marks of one letter.
std::vector<char32_t> nfc(std::string_view utf8);

std::string nfc_text(std::string_view utf8);

// One code point's lower case, as the default mapping of Unicode has it: only U+0130 becomes two. Of a word's place
// (a final sigma) nothing is known.
void append_lower(char32_t c, std::vector<char32_t>& to);

enum class CharClass {
  space,
  letter,
  number,
  other
};  // White_Space, L*, N*; marks and unassigned ones are `other`
CharClass char_class(char32_t c);

void append_utf8(char32_t c, std::string& to);

}  // namespace lockstep
