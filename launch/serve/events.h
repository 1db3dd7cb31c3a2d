// SPDX-License-Identifier: Apache-2.0
// Server-sent events (HTML Living Standard, 9.2) as the body of an answer. They end with it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "launch/serve/http.h"

namespace lockstep::serve {

struct Event {
  std::string name, data;  // data: JSON, on one line
};

class Events {
 public:
  Events() = default;
  ~Events() { close(); }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  HttpResponse head() const;  // the answer that they are the body of
  void send(const Event& event);
  void close() { stream_->close(); }
  // Whether the client takes them slower than they are made: what may be left out is.
  bool behind() const { return stream_->waiting() > kMostWaiting; }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kMostWaiting = 256 << 10;
  const std::shared_ptr<BodyStream> stream_ = std::make_shared<BodyStream>();
  size_t bytes_ = 0;
};

}  // namespace lockstep::serve
