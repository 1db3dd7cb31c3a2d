// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/answers.h"

#include <nlohmann/json.hpp>

#include "runtime/files/json_text.h"

namespace lockstep::serve {

HttpResponse error_answer(int status, const std::string& message,
                          std::vector<std::pair<std::string, std::string>> headers,
                          const std::string& field) {
  nlohmann::ordered_json error = {{"code", status}, {"message", message}};
  if (!field.empty()) error["field"] = field;
  return {status, "application/json", json_text(nlohmann::ordered_json{{"error", error}}),
          std::move(headers)};
}

HttpResponse answer_of(const Refusal& r) {
  std::vector<std::pair<std::string, std::string>> headers;
  if (r.retry_after > 0) headers.emplace_back("Retry-After", std::to_string(r.retry_after));
  return error_answer(r.status, r.message, std::move(headers), r.field);
}

}  // namespace lockstep::serve
