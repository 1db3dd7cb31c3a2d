// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/events.h"

#include <fmt/format.h>

namespace lockstep::serve {

HttpResponse Events::head() const {
  // The last is for nginx, which would keep them until there are many.
  return {200, "text/event-stream", "", {{"X-Accel-Buffering", "no"}}, stream_};
}

void Events::send(const Event& event) {
  const std::string text = fmt::format("event: {}\ndata: {}\n\n", event.name, event.data);
  bytes_ += text.size();
  stream_->write(text);
}

}  // namespace lockstep::serve
