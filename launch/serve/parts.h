// SPDX-License-Identifier: Apache-2.0
// A body of several requests, one a line (application/jsonlines), and its answer, which has their answers in their order.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "launch/serve/http.h"

namespace lockstep::serve {

bool is_json_lines(const HttpRequest& request);
// Of each line that is not empty a request of type application/json. Refusal (400) for none, and for more than `most`.
std::vector<HttpRequest> requests_in_lines(const HttpRequest& request, int64_t most);

// As many replies; `whole` is called once, when the last has been sent: 200 and a line of each or, where one failed, the
// first that did, with its line's number (from 1).
std::vector<std::shared_ptr<Reply>> replies_in_lines(size_t count, std::function<void(HttpResponse)> whole,
                                                     std::function<bool()> gone);

}  // namespace lockstep::serve
