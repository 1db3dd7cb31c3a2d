// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/together.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "runtime/files/json_text.h"

namespace lockstep {
namespace {

using nlohmann::json;

std::string encode(const Error& e) {
  json places = json::array();
  for (const auto& [k, v] : e.places()) places.push_back({k, v});
  return json_text(json{
      {"exit", e.code()}, {"id", e.id()}, {"message", e.message()}, {"hint", e.hint()}, {"places", places}});
}

Error decode(const std::string& text) {
  const json j = json::parse(text);
  Error e(static_cast<Exit>(j.at("exit").get<int>()), j.at("id"), j.at("message"));
  for (const auto& p : j.at("places")) e.add_place(p[0].get<std::string>(), p[1].get<std::string>());
  const auto hint = j.at("hint").get<std::string>();
  return hint.empty() ? e : std::move(e).hint(hint);
}

std::string failure_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& e) {
    return encode(e);
  } catch (const std::exception& e) {
    return encode(Error(Exit::internal, "E_INTERNAL", e.what()));
  }
  return "";
}

}  // namespace

void together(Communicator& comm, const std::function<void()>& work) {
  const auto failures = comm.gather_text(failure_of(work));
  bool all = true;
  for (const auto& f : failures) all &= !f.empty();
  for (size_t r = 0; r < failures.size(); ++r)
    if (!failures[r].empty()) {
      Error e = decode(failures[r]);
      if (!all) e.add_place("rank", std::to_string(r));
      throw AgreedError(std::move(e));
    }
}

std::string on_root(Communicator& comm, const std::function<std::string()>& work) {
  std::string result, failure;
  if (comm.rank() == 0) failure = failure_of([&] { result = work(); });
  const std::string told = comm.broadcast_text(failure.empty() ? "+" + result : "-" + failure, 0);
  if (told[0] == '-') throw AgreedError(decode(told.substr(1)));
  return told.substr(1);
}

}  // namespace lockstep
