// SPDX-License-Identifier: Apache-2.0
// JSON as text that is UTF-8 whatever the strings in it are: a file's name may be any bytes.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace lockstep {

// What is no UTF-8 becomes U+FFFD, where json::dump would throw. `indent` -1: on one line.
template <class Json>
std::string json_text(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

// A name as the files that we write have it.
inline std::string utf8_text(const std::string& bytes) {
  return nlohmann::json::parse(json_text(nlohmann::json(bytes)), nullptr, false).get<std::string>();
}

}  // namespace lockstep
