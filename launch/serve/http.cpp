// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/http.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <cctype>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <type_traits>

#include "kernels/core/error.h"
#include "launch/serve/answers.h"
#include "runtime/files/path.h"

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

using PlainStream = beast::tcp_stream;
using TlsStream = beast::ssl_stream<beast::tcp_stream>;

constexpr size_t kMostPem = 1 << 20;  // bytes of a certificate's file

std::shared_ptr<asio::ssl::context> tls_context(const TlsFiles& files) {
  auto context = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_server);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION);
  error_code error;
  // Else OpenSSL asks the terminal.
  context->set_password_callback([](size_t, asio::ssl::context::password_purpose) { return ""; }, error);
  const std::string certificate = read_text_file(files.certificate, kMostPem),
                    key = read_text_file(files.key, kMostPem);
  context->use_certificate_chain(asio::buffer(certificate), error);
  if (error) throw Error(Exit::data, "E_TLS", "no certificate in PEM form").at("file", files.certificate);
  context->use_private_key(asio::buffer(key), asio::ssl::context::pem, error);
  // OpenSSL holds it against the certificate as soon as it has both.
  if (error.value() != 0 &&
      ERR_GET_REASON(static_cast<unsigned long>(error.value())) == X509_R_KEY_VALUES_MISMATCH)
    throw Error(Exit::config, "E_TLS", "this key is not the certificate's")
        .at("file", files.key)
        .at("certificate", files.certificate);
  if (error)
    throw Error(Exit::data, "E_TLS", "no private key in PEM form without a passphrase").at("file", files.key);
  return context;
}

}  // namespace

struct HttpServer::Impl {
  class Connection {
   public:
    virtual ~Connection() = default;
    virtual void start(bool too_many) = 0;
    virtual void drain() = 0;  // ends where no request is there
  };
  template <class Stream>
  class ConnectionOver;

  Impl(const std::string& address, int port, const HttpLimits& l, HttpHandler h,
       const std::optional<TlsFiles>& files)
      : limits(l), handler(std::move(h)), tls_files(files), acceptor(io), retry(io) {
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
  void ended(const std::shared_ptr<Connection>& c) {
    open.erase(c);
    const std::lock_guard lock(mutex);
    count = static_cast<int64_t>(open.size());
    none_left.notify_all();
  }

  const HttpLimits limits;
  const HttpHandler handler;
  const std::optional<TlsFiles> tls_files;
  std::shared_ptr<asio::ssl::context> tls;  // null: plain; the thread's own once it runs
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
template <class Stream>
class HttpServer::Impl::ConnectionOver : public Connection,
                                         public std::enable_shared_from_this<ConnectionOver<Stream>> {
 public:
  static constexpr bool kTls = std::is_same_v<Stream, TlsStream>;

  // context: of a stream over TLS; it stays as long as the connection.
  ConnectionOver(Impl& server, tcp::socket socket, std::shared_ptr<asio::ssl::context> context)
      : server_(server),
        context_(std::move(context)),
        stream_(make_stream(std::move(socket), context_.get())),
        buffer_(kBufferBytes),
        look_again_(server.io) {
    error_code ignored;
    tcp_layer().socket().set_option(tcp::no_delay(true), ignored);
    const auto peer = tcp_layer().socket().remote_endpoint(ignored);
    if (!ignored) peer_ = peer.address().to_string();
  }

  void start(bool too_many) override {
    if constexpr (kTls) {
      state_ = State::reading;
      tcp_layer().expires_after(span_of(server_.limits.head_seconds));
      stream_.async_handshake(asio::ssl::stream_base::server,
                              [self = this->shared_from_this(), too_many](error_code e) {
                                if (e) return self->close();
                                self->begin(too_many);
                              });
    } else {
      begin(too_many);
    }
  }

  void drain() override {
    if (state_ == State::idle) close();
  }

 private:
  // Pipelined requests, and what a parser may see at once of chunk extensions and trailers.
  static constexpr size_t kBufferBytes = 64 << 10;
  enum class State : uint8_t { idle, reading, answering, ending };

  static Stream make_stream(tcp::socket socket, asio::ssl::context* context) {
    if constexpr (kTls)
      return Stream(std::move(socket), *context);
    else
      return Stream(std::move(socket));
  }
  beast::tcp_stream& tcp_layer() { return beast::get_lowest_layer(stream_); }

  void begin(bool too_many) {
    if (too_many)
      answer(error_answer(503, "too many connections", {{"Retry-After", "1"}}), false);
    else
      read_head(server_.limits.head_seconds);
  }

  class Answer : public Reply {
   public:
    explicit Answer(std::shared_ptr<ConnectionOver> c) : connection_(std::move(c)) {}
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
    std::shared_ptr<ConnectionOver> connection_;
    std::atomic<bool> sent_ = false;
  };

  void read_head(double seconds) {
    parser_.emplace();
    parser_->header_limit(static_cast<std::uint32_t>(server_.limits.header_bytes));
    parser_->body_limit(static_cast<std::uint64_t>(server_.limits.body_bytes));
    state_ = buffer_.size() > 0 ? State::reading : State::idle;
    tcp_layer().expires_after(span_of(seconds));
    http::async_read_header(
        stream_, buffer_, *parser_,
        [self = this->shared_from_this()](error_code e, size_t) { self->head_is_read(e); });
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
    tcp_layer().expires_after(span_of(server_.limits.body_seconds));
    if (expect.empty() || parser_->is_done()) return read_body();
    go_on_.emplace(http::status::continue_, 11);
    http::async_write(stream_, *go_on_, [self = this->shared_from_this()](error_code error, size_t) {
      if (error) return self->close();
      self->read_body();
    });
  }

  void read_body() {
    http::async_read(stream_, buffer_, *parser_, [self = this->shared_from_this()](error_code e, size_t) {
      if (e) return self->refuse(e);
      self->request_.body = std::move(self->parser_->get().body());
      self->handle();
    });
  }

  void handle() {
    state_ = State::answering;
    tcp_layer().expires_never();
    watch();
    const auto reply = std::make_shared<Answer>(this->shared_from_this());
    try {
      server_.handler(std::move(request_), reply);
    } catch (const std::exception&) {
      reply->send(error_answer(500, "the server failed"));
    }
  }

  // A client that closes its end while it is answered has gone. Data is its next request, or the alert by which TLS
  // ends: what comes behind it is looked for from time to time.
  void watch() {
    tcp_layer().socket().async_wait(tcp::socket::wait_read,
                                    [self = this->shared_from_this(), turn = turn_](error_code e) {
                                      if (!e && turn == self->turn_) self->look();
                                    });
  }
  void look() {
    pollfd p{tcp_layer().socket().native_handle(), POLLRDHUP, 0};
    if (::poll(&p, 1, 0) > 0) {
      gone_ = true;
      return;
    }
    look_again_.expires_after(std::chrono::milliseconds(100));
    look_again_.async_wait([self = this->shared_from_this(), turn = turn_](error_code e) {
      if (!e && turn == self->turn_) self->look();
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
    ++turn_;  // no more watching
    look_again_.cancel();
    error_code ignored;
    tcp_layer().socket().cancel(ignored);
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
    tcp_layer().expires_after(span_of(server_.limits.write_seconds));
    const auto written = [self = this->shared_from_this(), keep](error_code e, size_t) {
      if (e) return self->close();
      if (!keep) return self->end();
      self->request_ = {};
      self->read_head(self->server_.limits.idle_seconds);
    };
    if (head_only_)
      http::async_write_header(stream_, *serializer_, written);
    else
      http::async_write(stream_, *serializer_, written);
  }

  // The answer is the last. What the client still sends is read for a while and thrown away: were the socket closed with
  // it, TCP would take back the answer too.
  void end() {
    state_ = State::ending;
    tcp_layer().expires_after(std::chrono::seconds(1));
    if constexpr (kTls)
      stream_.async_shutdown([self = this->shared_from_this()](error_code) { self->linger(); });
    else
      linger();
  }
  void linger() {
    error_code error;
    tcp_layer().socket().shutdown(tcp::socket::shutdown_send, error);
    if (error || server_.open.size() > 2 * static_cast<size_t>(server_.limits.connections)) return close();
    throw_away();
  }
  void throw_away() {
    tcp_layer().async_read_some(asio::buffer(thrown_away_),
                                [self = this->shared_from_this()](error_code e, size_t) {
                                  if (e) return self->close();
                                  self->throw_away();
                                });
  }

  void close() {
    if (std::exchange(closed_, true)) return;
    gone_ = true;
    ++turn_;
    look_again_.cancel();
    error_code ignored;
    tcp_layer().socket().shutdown(tcp::socket::shutdown_both, ignored);
    tcp_layer().close();
    server_.ended(this->shared_from_this());
  }

  Impl& server_;
  const std::shared_ptr<asio::ssl::context> context_;
  Stream stream_;
  beast::flat_buffer buffer_;
  asio::steady_timer look_again_;
  int64_t turn_ = 0;  // of watching
  std::array<char, 4096> thrown_away_;
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
    std::shared_ptr<Connection> c;
    if (tls)
      c = std::make_shared<ConnectionOver<TlsStream>>(*this, std::move(socket), tls);
    else
      c = std::make_shared<ConnectionOver<PlainStream>>(*this, std::move(socket), nullptr);
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
