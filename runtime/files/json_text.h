// SPDX-License-Identifier: Apache-2.0
// JSON as text that is UTF-8 whatever the strings in it are: a file's name may be any bytes.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace lockstep {

// What is no UTF-8 becomes U+FFFD, where json::dump would throw. `indent` -1: on one line. It escapes control characters, but
// for DEL and C1's, which terminals heed too.
template <class Json>
std::string json_text(const Json& json, int indent = -1) {
  const std::string text = json.dump(indent, ' ', false, Json::error_handler_t::replace);
  constexpr const char* kHex = "0123456789abcdef";
  std::string out;
  size_t done = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto u = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    const bool c1 = u == 0xc2 && next < 0xa0;
    if (u != 0x7f && !c1) continue;
    out.append(text, done, i - done).append("\\u00");
    const unsigned char code = c1 ? next : u;
    out += {kHex[code >> 4], kHex[code & 15]};
    i += c1;
    done = i + 1;
  }
  return done == 0 ? text : out.append(text, done);
}

// A name as the files that we write have it.
inline std::string utf8_text(const std::string& bytes) {
  return nlohmann::json::parse(json_text(nlohmann::json(bytes)), nullptr, false).get<std::string>();
}

}  // namespace lockstep
