// SPDX-License-Identifier: Apache-2.0
// One connection of a server: its requests one after the other, each with its answer, plain or over TLS.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <set>

#include "launch/serve/http.h"

namespace lockstep::serve {

class Connection {
 public:
  virtual ~Connection() = default;
  virtual void start(bool too_many) = 0;  // too_many: is told so, and ends
  virtual void drain() = 0;               // ends where no request is there
  // Since when it waits for its client's next request, or for the rest of one; nothing where the client waits.
  virtual std::optional<std::chrono::steady_clock::time_point> waits_since() const = 0;
  virtual void close() = 0;
};

// What connections have in common. All but the handler's answers happens in the thread that runs `io`.
struct ConnectionHome {
  HttpLimits limits;
  HttpHandler handler;
  boost::asio::io_context io{1};
  std::set<std::shared_ptr<Connection>> open;
  bool draining = false;
  std::function<void()> changed;  // after one has ended
};

// context: of connections over TLS; null: plain.
std::shared_ptr<Connection> make_connection(ConnectionHome& home, boost::asio::ip::tcp::socket socket,
                                            std::shared_ptr<boost::asio::ssl::context> context);

inline std::chrono::milliseconds span_of(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

}  // namespace lockstep::serve
