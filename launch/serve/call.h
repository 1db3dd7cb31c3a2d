// SPDX-License-Identifier: Apache-2.0
// The API's inside, which its sources share: a route, and a request until it is answered.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>

#include "launch/serve/api.h"
#include "launch/serve/openapi.h"
#include "runtime/files/json_text.h"

namespace lockstep::serve {

struct Api::Route : RouteFacts {
  Route(const RouteFacts& facts, HttpResponse (Api::*how)(const CallPtr&), bool needs_model = true)
      : RouteFacts(facts), handle(how), ready(needs_model) {}
  HttpResponse (Api::*handle)(const CallPtr&);
  bool ready;  // answered once the models are loaded
};

struct Api::Call {
  HttpRequest request;
  std::shared_ptr<Reply> reply;
  Clock::time_point start = Clock::now();
  const Route* route = nullptr;  // null: there is none
  std::string name;              // of a model, in the path
  std::string version;           // of the model that answers, once it is known
  bool part = false;             // of a request, which is counted as a whole
  std::shared_ptr<void> place;   // among those of its address, until it is answered or given up
  std::optional<Events> events;  // of an answer that is a stream, once it has begun

  const Dialect& dialect() const { return route ? *route->dialect : kOwn; }
};

inline HttpResponse json_answer(const nlohmann::ordered_json& json) {
  return {200, "application/json", json_text(json)};
}

}  // namespace lockstep::serve
