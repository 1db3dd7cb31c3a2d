// SPDX-License-Identifier: Apache-2.0
// Answers that say what went wrong: {"error": {"code": 400, "message": "...", "field": "height"}}.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "launch/serve/http.h"

namespace lockstep::serve {

HttpResponse error_answer(int status, const std::string& message,
                          std::vector<std::pair<std::string, std::string>> headers = {},
                          const std::string& field = "");

// What a request asks for cannot be had; becomes such an answer.
struct Refusal {
  int status = 400;
  std::string message, field = {};
  int retry_after = 0;  // seconds; 0: not said
};
HttpResponse answer_of(const Refusal& refusal);

}  // namespace lockstep::serve
