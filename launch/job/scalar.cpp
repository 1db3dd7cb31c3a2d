// SPDX-License-Identifier: Apache-2.0
#include "launch/job/scalar.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "launch/job/yaml_tree.h"

namespace lockstep::job {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

size_t count_digits(std::string_view s) {
  size_t n = 0;
  while (n < s.size() && is_digit(s[n])) ++n;
  return n;
}

std::string_view without_sign(std::string_view s) {
  if (!s.empty() && (s[0] == '+' || s[0] == '-')) s.remove_prefix(1);
  return s;
}

std::string_view without_plus(std::string_view s) {
  if (!s.empty() && s[0] == '+') s.remove_prefix(1);
  return s;
}

bool is_integer(std::string_view text) {
  text = without_sign(text);
  return !text.empty() && count_digits(text) == text.size();
}

bool has_leading_zero(std::string_view text) {
  text = without_sign(text);
  return text.size() > 1 && text[0] == '0' && is_digit(text[1]);
}

bool is_number(std::string_view text) {
  text = without_sign(text);
  const size_t whole = count_digits(text);
  text.remove_prefix(whole);
  size_t fraction = 0;
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    fraction = count_digits(text);
    text.remove_prefix(fraction);
  }
  if (whole + fraction == 0) return false;
  if (text.starts_with('e') || text.starts_with('E')) {
    text = without_sign(text.substr(1));
    const size_t exponent = count_digits(text);
    if (exponent == 0) return false;
    text.remove_prefix(exponent);
  }
  return text.empty();
}

template <class T>
std::string parse_whole(std::string_view text, T& out) {
  if (!is_integer(text)) {
    if (is_number(text)) return "expected an integer, written without point or exponent";
    return "expected an integer";
  }
  if (has_leading_zero(text)) return "expected an integer without leading zeros (decimal or octal?)";
  const std::string_view digits = without_plus(text);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  if (error != std::errc() || end != digits.data() + digits.size()) return "integer out of range";
  return {};
}

}  // namespace

std::string parse_integer(std::string_view text, int64_t& out) { return parse_whole(text, out); }
std::string parse_unsigned(std::string_view text, uint64_t& out) { return parse_whole(text, out); }

std::string parse_number(std::string_view text, double& out) {
  if (!is_number(text)) return "expected a finite decimal number";
  if (has_leading_zero(text)) return "expected a number without leading zeros";
  const std::string_view digits = without_plus(text);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  if (error != std::errc() || end != digits.data() + digits.size() || !std::isfinite(out))
    return "number out of double's range";
  return {};
}

std::string parse_boolean(std::string_view text, bool& out) {
  if (text != "true" && text != "false") return "expected true or false";
  out = text == "true";
  return {};
}

std::string meant_boolean(std::string_view text) {
  std::string word(text);
  for (char& c : word) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const char* yes : {"true", "yes", "on", "y", "t", "1"})
    if (word == yes) return "true";
  for (const char* no : {"false", "no", "off", "n", "f", "0"})
    if (word == no) return "false";
  return {};
}

std::string meant_number(std::string_view text, bool integer) {
  uint64_t hexadecimal = 0;
  if (integer && (text.starts_with("0x") || text.starts_with("0X"))) {
    const auto [end, error] = std::from_chars(text.data() + 2, text.data() + text.size(), hexadecimal, 16);
    return error == std::errc() && end == text.data() + text.size() ? fmt::format("{}", hexadecimal) : "";
  }
  std::string plain;
  // Separators of thousands, and the comma that many countries write for a point.
  const bool comma =
      std::count(text.begin(), text.end(), ',') == 1 && text.find('.') == std::string_view::npos && !integer;
  for (const char c : text)
    if (c == ',' && comma)
      plain += '.';
    else if (c != '_' && c != ',' && c != ' ' && c != '\'')
      plain += c;
  if (!is_number(plain)) return {};
  double value = 0;
  const std::string_view digits = without_plus(plain);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size()) return {};
  if (!integer) return number_text(value);
  constexpr double kExact = 9007199254740992;  // 2^53
  if (value != std::floor(value) || std::abs(value) > kExact) return {};
  return fmt::format("{}", static_cast<int64_t>(value));
}

bool looks_typed(std::string_view word) { return word == "true" || word == "false" || is_number(word); }

std::string number_text(double value) { return fmt::format("{}", value); }

std::string string_text(const std::string& value) {
  bool plain = !value.empty() && !looks_typed(value) && value != "null" && value != "Null" &&
               value != "NULL" &&
               (std::isalpha(static_cast<unsigned char>(value[0])) || value[0] == '/' || value[0] == '_');
  for (const char c : value)
    plain = plain &&
            (std::isalnum(static_cast<unsigned char>(c)) || c == '/' || c == '_' || c == '.' || c == '-');
  if (plain) return value;
  std::string out = "\"";
  for (const char c : value) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      out += fmt::format("\\{}", c);
    else if (u < 0x20 || u == 0x7f)
      out += fmt::format("\\x{:02x}", u);
    else
      out += c;
  }
  return out + "\"";
}

}  // namespace lockstep::job
