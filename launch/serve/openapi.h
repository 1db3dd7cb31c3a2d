// SPDX-License-Identifier: Apache-2.0
// What the server takes, as OpenAPI 3.1 says it: made of the tables by which it reads.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>

#include "launch/serve/dialects.h"

namespace lockstep::serve {

struct RouteFacts {
  const char *path, *method, *summary;  // "/models/NAME/invoke": NAME is any model's
  bool open;                            // without the token
  const Dialect* dialect;               // of its errors
  bool has_body = false;                // of the dialect's fields
};

nlohmann::ordered_json openapi(std::span<const RouteFacts> routes, bool token);

}  // namespace lockstep::serve
