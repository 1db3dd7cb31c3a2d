// SPDX-License-Identifier: Apache-2.0
// Values of JSON that came from outside. nlohmann's at() and value() throw what no user can read where a key is missing or is
// of another type.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "runtime/files/json_text.h"

namespace lockstep {

template <class T>
struct JsonType {  // a number, or true or false
  static constexpr const char* name = std::is_same_v<T, bool> ? "true or false"
                                      : std::is_integral_v<T> ? "a whole number"
                                                              : "a number";
  static bool holds(const nlohmann::json& j) {
    static_assert(std::is_arithmetic_v<T>);
    if constexpr (std::is_same_v<T, bool>)
      return j.is_boolean();
    else if constexpr (std::is_floating_point_v<T>)
      return j.is_number();
    else if (j.is_number_unsigned())
      return std::in_range<T>(j.get<uint64_t>());
    else
      return j.is_number_integer() && std::in_range<T>(j.get<int64_t>());
  }
};
template <>
struct JsonType<std::string> {
  static constexpr const char* name = "a string";
  static bool holds(const nlohmann::json& j) { return j.is_string(); }
};
template <>
struct JsonType<std::vector<std::string>> {
  static constexpr const char* name = "a list of strings";
  static bool holds(const nlohmann::json& j) {
    return j.is_array() && std::all_of(j.begin(), j.end(), JsonType<std::string>::holds);
  }
};
template <>
struct JsonType<std::map<std::string, std::string>> {
  static constexpr const char* name = "an object of strings";
  static bool holds(const nlohmann::json& j) {
    return j.is_object() && std::all_of(j.begin(), j.end(), JsonType<std::string>::holds);
  }
};
template <>
struct JsonType<nlohmann::json::object_t> {
  static constexpr const char* name = "an object";
  static bool holds(const nlohmann::json& j) { return j.is_object(); }
};
template <>
struct JsonType<nlohmann::json::array_t> {
  static constexpr const char* name = "a list";
  static bool holds(const nlohmann::json& j) { return j.is_array(); }
};

// The value of a key; null where it is missing or `json` is no object.
inline const nlohmann::json& json_member(const nlohmann::json& json, std::string_view key) {
  static const nlohmann::json null;
  const auto found = json.is_object() ? json.find(std::string(key)) : json.end();
  return found == json.end() ? null : *found;
}

// The value of a key in `file`. `within`: what the object is in, "stop.". Error data (65), naming file and key.
template <class T>
T json_get(const nlohmann::json& json, const std::string& key, const std::string& file,
           const std::string& within = "") {
  const nlohmann::json& value = json_member(json, key);
  if (JsonType<T>::holds(value)) return value.get<T>();
  const bool is_there = json.is_object() && json.contains(key);
  throw Error(
      Exit::data, "E_JSON",
      fmt::format("expected {}, found {}", JsonType<T>::name, is_there ? json_text(value) : "no such key"))
      .at("file", file)
      .at("key", within + key);
}

// `otherwise` where the key is missing.
template <class T>
T json_get_or(const nlohmann::json& json, const std::string& key, T otherwise, const std::string& file,
              const std::string& within = "") {
  return json.is_object() && !json.contains(key) ? otherwise : json_get<T>(json, key, file, within);
}

}  // namespace lockstep
