// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/http.h"

#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "kernels/core/error.h"
#include "launch/serve/connection.h"
#include "launch/serve/tls.h"

namespace lockstep::serve {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

struct HttpServer::Impl : ConnectionHome {
  Impl(const std::string& address, int port, const HttpLimits& l, HttpHandler h,
       const std::optional<TlsFiles>& files)
      : tls_files(files), acceptor(io), retry(io) {
    limits = l, handler = std::move(h);
    changed = [this] {
      const std::lock_guard lock(mutex);
      count = static_cast<int64_t>(open.size());
      none_left.notify_all();
    };
    if (tls_files) tls = tls_context(*tls_files);
    error_code error;
    const auto where = asio::ip::make_address(address, error);
    if (error)
      throw Error(Exit::usage, "E_SERVE_ADDRESS", fmt::format("'{}' is no IP address", address))
          .hint("127.0.0.1, or 0.0.0.0 for all of this machine's");
    const tcp::endpoint endpoint(where, static_cast<uint16_t>(port));
    acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error)
      throw Error(Exit::unavailable, "E_PORT_BUSY",
                  fmt::format("cannot listen on {}:{}: {}", address, port, error.message()))
          .hint("--port 0 takes any free one");
    bound_port = acceptor.local_endpoint().port();
    accept();
    thread = std::thread([this] { io.run(); });
  }

  ~Impl() {
    io.stop();
    thread.join();
  }

  void accept();
  // Ends the connection that has waited longest for its client, so that those that say nothing, or speak slowly, keep nobody
  // out.
  void make_room();
  const std::optional<TlsFiles> tls_files;
  std::shared_ptr<asio::ssl::context> tls;  // null: plain; the thread's own once it runs
  tcp::acceptor acceptor;
  asio::steady_timer retry;
  int bound_port = 0;
  std::mutex mutex;
  std::condition_variable none_left;
  std::atomic<int64_t> count = 0;
  std::thread thread;
};

void BodyStream::write(const std::string& bytes) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_ || abandoned_) return;
    bytes_ += bytes;
  }
  wake();
}

void BodyStream::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  wake();
}

void BodyStream::wake() {
  std::function<void()> listener;
  {
    const std::lock_guard lock(mutex_);
    listener = listener_;
  }
  if (listener) listener();
}

size_t BodyStream::waiting() const {
  const std::lock_guard lock(mutex_);
  return bytes_.size();
}

void BodyStream::listen(std::function<void()> listener) {
  const std::lock_guard lock(mutex_);
  listener_ = std::move(listener);
}

bool BodyStream::take(std::string& bytes) {
  const std::lock_guard lock(mutex_);
  bytes = std::exchange(bytes_, {});
  return !closed_;
}

void BodyStream::abandon() {
  const std::lock_guard lock(mutex_);
  abandoned_ = true;
  listener_ = nullptr;
  bytes_.clear();
}

void HttpServer::Impl::make_room() {
  std::shared_ptr<Connection> longest;
  for (const auto& c : open)
    if (c->waits_since() && (!longest || *c->waits_since() < *longest->waits_since())) longest = c;
  if (longest) longest->close();
}

void HttpServer::Impl::accept() {
  acceptor.async_accept([this](error_code e, tcp::socket socket) {
    if (e == asio::error::operation_aborted) return;
    if (e) {  // out of descriptors, say: later there may be some
      retry.expires_after(std::chrono::milliseconds(100));
      retry.async_wait([this](error_code stopped) {
        if (!stopped) accept();
      });
      return;
    }
    if (static_cast<int64_t>(open.size()) >= limits.connections) make_room();
    const bool too_many = static_cast<int64_t>(open.size()) >= limits.connections;
    const auto c = make_connection(*this, std::move(socket), tls);
    open.insert(c);
    count = static_cast<int64_t>(open.size());
    c->start(too_many);
    accept();
  });
}

HttpServer::HttpServer(const std::string& address, int port, const HttpLimits& limits, HttpHandler handler,
                       const std::optional<TlsFiles>& tls)
    : impl_(std::make_unique<Impl>(address, port, limits, std::move(handler), tls)) {}
HttpServer::~HttpServer() = default;

int HttpServer::port() const { return impl_->bound_port; }

void HttpServer::renew_tls() {
  if (!impl_->tls_files) return;
  asio::post(impl_->io,
             [impl = impl_.get(), context = tls_context(*impl_->tls_files)] { impl->tls = context; });
}

void HttpServer::drain() {
  asio::post(impl_->io, [impl = impl_.get()] {
    impl->draining = true;
    const auto connections = impl->open;  // which closing changes
    for (const auto& c : connections) c->drain();
  });
}

void HttpServer::finish(double seconds) {
  drain();
  asio::post(impl_->io, [impl = impl_.get()] { impl->acceptor.close(); });
  std::unique_lock lock(impl_->mutex);
  impl_->none_left.wait_for(lock, span_of(seconds), [&] { return impl_->count == 0; });
}

}  // namespace lockstep::serve
