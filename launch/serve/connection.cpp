// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/connection.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <cctype>
#include <optional>
#include <type_traits>

#include "kernels/core/error.h"
#include "launch/serve/answers.h"

namespace lockstep::serve {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

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

// All members but gone_ belong to the server's thread.
template <class Stream>
class ConnectionOver : public Connection, public std::enable_shared_from_this<ConnectionOver<Stream>> {
 public:
  static constexpr bool kTls = std::is_same_v<Stream, TlsStream>;

  // context: of a stream over TLS; it stays as long as the connection.
  ConnectionOver(ConnectionHome& home, tcp::socket socket, std::shared_ptr<asio::ssl::context> context)
      : home_(home),
        context_(std::move(context)),
        stream_(make_stream(std::move(socket), context_.get())),
        buffer_(kBufferBytes),
        look_again_(home.io),
        quiet_(home.io) {
    error_code ignored;
    tcp_layer().socket().set_option(tcp::no_delay(true), ignored);
    const auto peer = tcp_layer().socket().remote_endpoint(ignored);
    if (!ignored) peer_ = peer.address().to_string();
  }

  void start(bool too_many) override {
    if constexpr (kTls) {
      state_ = State::reading;
      tcp_layer().expires_after(span_of(home_.limits.head_seconds));
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

  std::optional<std::chrono::steady_clock::time_point> waits_since() const override {
    if (state_ == State::idle || state_ == State::reading) return since_;
    return std::nullopt;
  }

  void close() override {
    if (std::exchange(closed_, true)) return;
    gone_ = true;
    ++turn_;
    look_again_.cancel();
    quiet_.cancel();
    if (parts_) parts_->abandon();
    parts_.reset();
    error_code ignored;
    tcp_layer().socket().shutdown(tcp::socket::shutdown_both, ignored);
    tcp_layer().close();
    home_.open.erase(this->shared_from_this());
    home_.changed();
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
      read_head(home_.limits.head_seconds);
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
    parser_->header_limit(static_cast<std::uint32_t>(home_.limits.header_bytes));
    parser_->body_limit(static_cast<std::uint64_t>(home_.limits.body_bytes));
    state_ = buffer_.size() > 0 ? State::reading : State::idle;
    since_ = std::chrono::steady_clock::now();
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
        *parser_->content_length() > static_cast<std::uint64_t>(home_.limits.body_bytes))
      return answer(too_large(), false);
    const std::string expect = lower(request_.header("expect"));
    if (!expect.empty() && expect != "100-continue")
      return answer(error_answer(417, "only 100-continue is expected here"), false);
    tcp_layer().expires_after(span_of(home_.limits.body_seconds));
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
      home_.handler(std::move(request_), reply);
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
    return error_answer(413, fmt::format("a body has {} bytes at most", home_.limits.body_bytes));
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
    if (closed_) {
      if (r.stream) r.stream->abandon();
      return;
    }
    state_ = State::answering;
    if (r.stream) return answer_in_parts(std::move(r));
    stop_watching();
    const bool keep = whole && keep_alive_ && !home_.draining && !gone_;
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
    tcp_layer().expires_after(span_of(home_.limits.write_seconds));
    const auto written = [self = this->shared_from_this(), keep](error_code e, size_t) {
      if (e) return self->close();
      self->answered(keep);
    };
    if (head_only_)
      http::async_write_header(stream_, *serializer_, written);
    else
      http::async_write(stream_, *serializer_, written);
  }

  void answered(bool keep) {
    if (!keep) return end();
    request_ = {};
    read_head(home_.limits.idle_seconds);
  }

  // The client is watched as long as there are parts to come.
  void answer_in_parts(HttpResponse r) {
    parts_ = std::move(r.stream);
    writing_part_ = true;
    r.headers.emplace_back("Cache-Control", "no-store");
    part_head_.emplace(static_cast<http::status>(r.status), old_ ? 10 : 11);
    part_head_->set(http::field::server, "lockstep");
    part_head_->set(http::field::content_type, r.type);
    for (const auto& [name, value] : r.headers) part_head_->set(name, value);
    part_head_->set("X-Content-Type-Options", "nosniff");
    part_head_->keep_alive(keep_alive_ && !old_);
    part_head_->chunked(!old_);
    part_serializer_.emplace(*part_head_);
    tcp_layer().expires_after(span_of(home_.limits.write_seconds));
    http::async_write_header(stream_, *part_serializer_,
                             [self = this->shared_from_this()](error_code e, size_t) {
                               if (e || !self->parts_) return self->close();
                               self->parts_->listen([weak = self->weak_from_this(), &io = self->home_.io] {
                                 asio::post(io, [weak] {
                                   if (const auto c = weak.lock(); c && !c->writing_part_) c->write_part();
                                 });
                               });
                               self->write_part();
                             });
  }
  void write_part() {
    if (closed_ || !parts_) return;
    writing_part_ = true;
    quiet_.cancel();
    const bool more = parts_->take(part_);
    if (part_.empty() && more) {
      writing_part_ = false;
      tcp_layer().expires_never();
      return wait_for_part();
    }
    const std::string last = old_ ? "" : "0\r\n\r\n";
    if (!part_.empty() && !old_) part_ = fmt::format("{:x}\r\n{}\r\n", part_.size(), part_);
    if (!more) part_ += last;
    tcp_layer().expires_after(span_of(home_.limits.write_seconds));
    asio::async_write(stream_, asio::buffer(part_),
                      [self = this->shared_from_this(), more](error_code e, size_t) {
                        if (e) return self->close();
                        if (more) return self->write_part();
                        self->end_parts();
                      });
  }
  // Proxies and clients close what says nothing for long.
  void wait_for_part() {
    quiet_.expires_after(span_of(home_.limits.quiet_seconds));
    quiet_.async_wait([self = this->shared_from_this()](error_code e) {
      if (!e && self->parts_) self->parts_->write(": keepalive\n\n");
    });
  }
  void end_parts() {
    writing_part_ = false;
    parts_.reset();
    stop_watching();
    answered(keep_alive_ && !old_ && !home_.draining && !gone_);
  }
  void stop_watching() {
    ++turn_;
    look_again_.cancel();
    error_code ignored;
    tcp_layer().socket().cancel(ignored);
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
    if (error || home_.open.size() > 2 * static_cast<size_t>(home_.limits.connections)) return close();
    throw_away();
  }
  void throw_away() {
    tcp_layer().async_read_some(asio::buffer(thrown_away_),
                                [self = this->shared_from_this()](error_code e, size_t) {
                                  if (e) return self->close();
                                  self->throw_away();
                                });
  }

  ConnectionHome& home_;
  const std::shared_ptr<asio::ssl::context> context_;
  Stream stream_;
  beast::flat_buffer buffer_;
  asio::steady_timer look_again_, quiet_;
  int64_t turn_ = 0;  // of watching
  std::array<char, 4096> thrown_away_;
  std::optional<http::request_parser<http::string_body>> parser_;
  std::optional<http::response<http::string_body>> response_;
  std::optional<http::response_serializer<http::string_body>> serializer_;
  std::optional<http::response<http::empty_body>> go_on_, part_head_;
  std::optional<http::response_serializer<http::empty_body>> part_serializer_;
  std::shared_ptr<BodyStream> parts_;  // of an answer that is made while it is sent
  std::string part_;
  bool writing_part_ = false;
  HttpRequest request_;
  std::string peer_;
  State state_ = State::idle;
  std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
  bool keep_alive_ = false, old_ = false, head_only_ = false, closed_ = false;
  std::atomic<bool> gone_ = false;
};

}  // namespace

std::shared_ptr<Connection> make_connection(ConnectionHome& home, tcp::socket socket,
                                            std::shared_ptr<asio::ssl::context> context) {
  if (context)
    return std::make_shared<ConnectionOver<TlsStream>>(home, std::move(socket), std::move(context));
  return std::make_shared<ConnectionOver<PlainStream>>(home, std::move(socket), nullptr);
}

}  // namespace lockstep::serve
