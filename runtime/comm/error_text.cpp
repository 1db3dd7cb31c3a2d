// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/error_text.h"

#include <nlohmann/json.hpp>

#include "runtime/files/json_text.h"

namespace lockstep {

using nlohmann::json;

std::string encode(const Error& e) {
  json places = json::array();
  for (const auto& [k, v] : e.places()) places.push_back({k, v});
  return json_text(json{
      {"exit", e.code()}, {"id", e.id()}, {"message", e.message()}, {"hint", e.hint()}, {"places", places}});
}

Error decode_error(const std::string& text) {
  const json j = json::parse(text);
  Error e(static_cast<Exit>(j.at("exit").get<int>()), j.at("id"), j.at("message"));
  for (const auto& p : j.at("places")) e.add_place(p[0].get<std::string>(), p[1].get<std::string>());
  const auto hint = j.at("hint").get<std::string>();
  return hint.empty() ? e : std::move(e).hint(hint);
}

}  // namespace lockstep
