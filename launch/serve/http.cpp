// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/http.h"

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <cctype>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "kernels/core/error.h"
#include "launch/serve/answers.h"

namespace lockstep::serve {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

std::chrono::milliseconds span_of(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// "%2F" in a path; what is no such code stays.
std::string decoded(const std::string& text) {
  std::string out;
  const auto digit = [](char c) {
    static const std::string digits = "0123456789abcdef";
    const size_t at = digits.find(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
    return at == std::string::npos ? -1 : static_cast<int>(at);
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0) {
      out += static_cast<char>(16 * digit(text[i + 1]) + digit(text[i + 2]));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

struct HttpServer::Impl {
  class Connection;

  Impl(const std::string& address, int port, const HttpLimits& l, HttpHandler h)
      : limits(l), handler(std::move(h)), acceptor(io), retry(io) {
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
  void ended(const std::shared_ptr<Connection>& c) {
    open.erase(c);
    const std::lock_guard lock(mutex);
    count = static_cast<int64_t>(open.size());
    none_left.notify_all();
  }

  const HttpLimits limits;
  const HttpHandler handler;
  asio::io_context io{1};
  tcp::acceptor acceptor;
  asio::steady_timer retry;
  int bound_port = 0;
  std::set<std::shared_ptr<Connection>> open;  // the thread's own
  bool draining = false;                       // as well
  std::mutex mutex;
  std::condition_variable none_left;
  std::atomic<int64_t> count = 0;
  std::thread thread;
};

// All members but gone_ belong to the server's thread.
class HttpServer::Impl::Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Impl& server, tcp::socket socket)
      : server_(server), stream_(std::move(socket)), buffer_(kBufferBytes) {
    error_code ignored;
    stream_.socket().set_option(tcp::no_delay(true), ignored);
    const auto peer = stream_.socket().remote_endpoint(ignored);
    if (!ignored) peer_ = peer.address().to_string();
  }

  void start(bool too_many) {
    if (too_many)
      answer(error_answer(503, "too many connections", {{"Retry-After", "1"}}), false);
    else
      read_head(server_.limits.head_seconds);
  }

  void drain() {
    if (state_ == State::idle) close();
  }

 private:
  // Pipelined requests, and what a parser may see at once of chunk extensions and trailers.
  static constexpr size_t kBufferBytes = 64 << 10;
  enum class State : uint8_t { idle, reading, answering };

  class Answer : public Reply {
   public:
    explicit Answer(std::shared_ptr<Connection> c) : connection_(std::move(c)) {}
    ~Answer() override {
      if (!sent_) send(error_answer(500, "no answer was made"));
    }
    void send(HttpResponse response) override {
      if (sent_.exchange(true)) return;
      asio::post(connection_->stream_.get_executor(),
                 [c = connection_, r = std::move(response)]() mutable { c->answer(std::move(r), true); });
    }
    bool gone() const override { return connection_->gone_; }

   private:
    std::shared_ptr<Connection> connection_;
    std::atomic<bool> sent_ = false;
  };

  void read_head(double seconds) {
    parser_.emplace();
    parser_->header_limit(static_cast<std::uint32_t>(server_.limits.header_bytes));
    parser_->body_limit(static_cast<std::uint64_t>(server_.limits.body_bytes));
    state_ = buffer_.size() > 0 ? State::reading : State::idle;
    stream_.expires_after(span_of(seconds));
    http::async_read_header(stream_, buffer_, *parser_,
                            [self = shared_from_this()](error_code e, size_t) { self->head_is_read(e); });
  }

  void head_is_read(error_code e) {
    if (e) return refuse(e);
    state_ = State::reading;
    const auto& head = parser_->get();
    keep_alive_ = head.keep_alive();
    old_ = head.version() < 11;
    request_ = {};
    request_.method = std::string(head.method_string());
    request_.peer = peer_;
    const std::string target(head.target());
    const size_t mark = target.find('?');
    request_.path = decoded(target.substr(0, mark));
    if (mark != std::string::npos) request_.query = target.substr(mark + 1);
    int hosts = 0, lengths = 0;
    std::string coding;
    for (const auto& field : head) {
      const std::string name = lower(std::string(field.name_string())), value(field.value());
      hosts += name == "host";
      lengths += name == "content-length";
      if (name == "transfer-encoding") coding += (coding.empty() ? "" : ",") + value;
      request_.headers[name] = value;
    }
    // The body's end would be a matter of opinion.
    if (!coding.empty() && (lower(coding) != "chunked" || old_ || lengths > 0))
      return answer(error_answer(400, "the transfer coding is not chunked alone"), false);
    if (lengths > 1) return answer(error_answer(400, "Content-Length is given twice"), false);
    if (!old_ && hosts != 1) return answer(error_answer(400, "a request names one Host"), false);
    if (parser_->content_length() &&
        *parser_->content_length() > static_cast<std::uint64_t>(server_.limits.body_bytes))
      return answer(too_large(), false);
    const std::string expect = lower(request_.header("expect"));
    if (!expect.empty() && expect != "100-continue")
      return answer(error_answer(417, "only 100-continue is expected here"), false);
    stream_.expires_after(span_of(server_.limits.body_seconds));
    if (expect.empty() || parser_->is_done()) return read_body();
    go_on_.emplace(http::status::continue_, 11);
    http::async_write(stream_, *go_on_, [self = shared_from_this()](error_code error, size_t) {
      if (error) return self->close();
      self->read_body();
    });
  }

  void read_body() {
    http::async_read(stream_, buffer_, *parser_, [self = shared_from_this()](error_code e, size_t) {
      if (e) return self->refuse(e);
      self->request_.body = std::move(self->parser_->get().body());
      self->handle();
    });
  }

  void handle() {
    state_ = State::answering;
    stream_.expires_never();
    watch();
    const auto reply = std::make_shared<Answer>(shared_from_this());
    try {
      server_.handler(std::move(request_), reply);
    } catch (const std::exception&) {
      reply->send(error_answer(500, "the server failed"));
    }
  }

  // A client that closes its end while it is answered has gone; data is its next request.
  void watch() {
    stream_.socket().async_wait(tcp::socket::wait_read, [self = shared_from_this()](error_code e) {
      if (e || self->state_ != State::answering) return;
      char byte;
      if (::recv(self->stream_.socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
        self->gone_ = true;
    });
  }

  HttpResponse too_large() const {
    return error_answer(413, fmt::format("a body has {} bytes at most", server_.limits.body_bytes));
  }

  void refuse(error_code e) {
    if (e == http::error::end_of_stream || e == asio::error::operation_aborted) return close();
    if (e == beast::error::timeout) {
      // A connection that says nothing is closed; the socket is already.
      return close();
    }
    if (e == http::error::header_limit || e == http::error::buffer_overflow)
      return answer(error_answer(431, "the head of the request is too long"), false);
    if (e == http::error::body_limit) return answer(too_large(), false);
    if (e.category() == make_error_code(http::error::bad_method).category())
      return answer(error_answer(400, "this is no HTTP request"), false);
    close();
  }

  void answer(HttpResponse r, bool whole) {
    if (closed_) return;
    state_ = State::answering;
    error_code ignored;
    stream_.socket().cancel(ignored);  // no more watching
    const bool keep = whole && keep_alive_ && !server_.draining && !gone_;
    response_.emplace(static_cast<http::status>(r.status), old_ ? 10 : 11);
    response_->set(http::field::server, "lockstep");
    if (!r.type.empty()) response_->set(http::field::content_type, r.type);
    for (const auto& [name, value] : r.headers) response_->set(name, value);
    response_->set("X-Content-Type-Options", "nosniff");
    response_->keep_alive(keep);
    response_->body() = std::move(r.body);
    response_->prepare_payload();
    head_only_ = request_.method == "HEAD";
    serializer_.emplace(*response_);
    serializer_->split(head_only_);
    stream_.expires_after(span_of(server_.limits.write_seconds));
    const auto written = [self = shared_from_this(), keep](error_code e, size_t) {
      if (e || !keep) return self->close();
      self->request_ = {};
      self->read_head(self->server_.limits.idle_seconds);
    };
    if (head_only_)
      http::async_write_header(stream_, *serializer_, written);
    else
      http::async_write(stream_, *serializer_, written);
  }

  void close() {
    if (std::exchange(closed_, true)) return;
    gone_ = true;
    error_code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
    stream_.close();
    server_.ended(shared_from_this());
  }

  Impl& server_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  std::optional<http::response<http::string_body>> response_;
  std::optional<http::response_serializer<http::string_body>> serializer_;
  std::optional<http::response<http::empty_body>> go_on_;
  HttpRequest request_;
  std::string peer_;
  State state_ = State::idle;
  bool keep_alive_ = false, old_ = false, head_only_ = false, closed_ = false;
  std::atomic<bool> gone_ = false;
};

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
    const bool too_many = static_cast<int64_t>(open.size()) >= limits.connections;
    const auto c = std::make_shared<Connection>(*this, std::move(socket));
    open.insert(c);
    count = static_cast<int64_t>(open.size());
    c->start(too_many);
    accept();
  });
}

HttpServer::HttpServer(const std::string& address, int port, const HttpLimits& limits, HttpHandler handler)
    : impl_(std::make_unique<Impl>(address, port, limits, std::move(handler))) {}
HttpServer::~HttpServer() = default;

int HttpServer::port() const { return impl_->bound_port; }

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
