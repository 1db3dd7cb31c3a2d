// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/channel.h"

#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>

namespace lockstep::serve {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

class PlainChannel : public Channel {
 public:
  using Channel::Channel;
  void handshake(Handler handler) override { handler({}, 0); }
  void read_some(asio::mutable_buffer to, Handler handler) override { read_raw(to, std::move(handler)); }
  void write(std::array<asio::const_buffer, 2> all, Handler handler) override {
    asio::async_write(socket(), all, std::move(handler));
  }
  void shutdown(Handler handler) override { handler({}, 0); }
};

class TlsChannel : public Channel {
 public:
  TlsChannel(tcp::socket socket, std::shared_ptr<asio::ssl::context> context)
      : Channel(std::move(socket)), context_(std::move(context)), stream_(Channel::socket(), *context_) {}
  void handshake(Handler handler) override {
    stream_.async_handshake(asio::ssl::stream_base::server,
                            [h = std::move(handler)](error_code e) { h(e, 0); });
  }
  void read_some(asio::mutable_buffer to, Handler handler) override {
    stream_.async_read_some(to, std::move(handler));
  }
  void write(std::array<asio::const_buffer, 2> all, Handler handler) override {
    asio::async_write(stream_, all, std::move(handler));
  }
  void shutdown(Handler handler) override {
    stream_.async_shutdown([h = std::move(handler)](error_code e) { h(e, 0); });
  }

 private:
  const std::shared_ptr<asio::ssl::context> context_;  // as long as the stream
  asio::ssl::stream<tcp::socket&> stream_;
};

}  // namespace

void Channel::read_raw(asio::mutable_buffer to, Handler handler) {
  socket_.async_read_some(to, std::move(handler));
}

std::unique_ptr<Channel> make_channel(tcp::socket socket, std::shared_ptr<asio::ssl::context> context) {
  if (context) return std::make_unique<TlsChannel>(std::move(socket), std::move(context));
  return std::make_unique<PlainChannel>(std::move(socket));
}

}  // namespace lockstep::serve
