// SPDX-License-Identifier: Apache-2.0
// The bytes of one connection, plain or over TLS.
#pragma once

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <functional>
#include <memory>
#include <utility>

namespace lockstep::serve {

// Handlers keep it alive, and what they read into or write. One reads and one writes at a time.
class Channel {
 public:
  // One type of handlers: Asio's operations are compiled for each.
  using Handler = std::function<void(boost::system::error_code, size_t)>;

  explicit Channel(boost::asio::ip::tcp::socket socket) : socket_(std::move(socket)) {}
  virtual ~Channel() = default;
  virtual void handshake(Handler handler) = 0;
  virtual void read_some(boost::asio::mutable_buffer to, Handler handler) = 0;
  virtual void write(std::array<boost::asio::const_buffer, 2> all, Handler handler) = 0;
  virtual void shutdown(Handler handler) = 0;  // nothing is written after it

  // Below TLS.
  void read_raw(boost::asio::mutable_buffer to, Handler handler);
  boost::asio::ip::tcp::socket& socket() { return socket_; }

 private:
  boost::asio::ip::tcp::socket socket_;
};

// context: of TLS; null: plain.
std::unique_ptr<Channel> make_channel(boost::asio::ip::tcp::socket socket,
                                      std::shared_ptr<boost::asio::ssl::context> context);

}  // namespace lockstep::serve
