// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/connection.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/read_size.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cctype>
#include <optional>
#include <string_view>

#include "kernels/core/error.h"
#include "launch/serve/answers.h"
#include "launch/serve/channel.h"

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

// As it is sent, with the empty line.
std::string text_of(const http::response_header<>& head) {
  std::string text = fmt::format("HTTP/{}.{} {:03} {}\r\n", head.version() / 10, head.version() % 10,
                                 head.result_int(), std::string(head.reason()));
  for (const auto& field : head)
    text += fmt::format("{}: {}\r\n", std::string(field.name_string()), std::string(field.value()));
  return text + "\r\n";
}

// All members but gone_ belong to the server's thread.
class HttpConnection : public Connection, public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(ConnectionHome& home, std::unique_ptr<Channel> channel)
      : home_(home),
        channel_(std::move(channel)),
        buffer_(kBufferBytes),
        deadline_(home.io),
        look_again_(home.io),
        quiet_(home.io) {
    error_code ignored;
    channel_->socket().set_option(tcp::no_delay(true), ignored);
    const auto peer = channel_->socket().remote_endpoint(ignored);
    if (!ignored) peer_ = peer.address().to_string();
  }

  void start(bool too_many) override {
    state_ = State::reading;
    expires_after(home_.limits.head_seconds);
    channel_->handshake([self = shared_from_this(), too_many](error_code e, size_t) {
      if (e || self->closed_) return self->close();
      self->begin(too_many);
    });
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
    deadline_.cancel();
    look_again_.cancel();
    quiet_.cancel();
    if (parts_) parts_->abandon();
    parts_.reset();
    error_code ignored;
    channel_->socket().shutdown(tcp::socket::shutdown_both, ignored);
    channel_->socket().close(ignored);
    home_.open.erase(shared_from_this());
    home_.changed();
  }

 private:
  // Pipelined requests, and what a parser may see at once of chunk extensions and trailers.
  static constexpr size_t kBufferBytes = 64 << 10;
  enum class State : uint8_t { idle, reading, answering, ending };

  // Then it is closed, unless that is put off.
  void expires_after(double seconds) {
    deadline_.expires_after(span_of(seconds));
    deadline_.async_wait([self = shared_from_this()](error_code e) {
      if (!e && self->deadline_.expiry() <= std::chrono::steady_clock::now()) self->close();
    });
  }
  void expires_never() { deadline_.expires_at(std::chrono::steady_clock::time_point::max()); }

  void begin(bool too_many) {
    if (too_many)
      answer(error_answer(503, "too many connections", {{"Retry-After", "1"}}), false);
    else
      read_head(home_.limits.head_seconds);
  }

  class Answer : public Reply {
   public:
    explicit Answer(std::shared_ptr<HttpConnection> c) : connection_(std::move(c)) {}
    ~Answer() override {
      if (!sent_) send(error_answer(500, "no answer was made"));
    }
    void send(HttpResponse response) override {
      if (sent_.exchange(true)) return;
      asio::post(connection_->home_.io,
                 [c = connection_, r = std::move(response)]() mutable { c->answer(std::move(r), true); });
    }
    bool gone() const override { return connection_->gone_; }

   private:
    std::shared_ptr<HttpConnection> connection_;
    std::atomic<bool> sent_ = false;
  };

  void read_head(double seconds) {
    parser_.emplace();
    parser_->header_limit(static_cast<std::uint32_t>(home_.limits.header_bytes));
    parser_->body_limit(static_cast<std::uint64_t>(home_.limits.body_bytes));
    state_ = buffer_.size() > 0 ? State::reading : State::idle;
    since_ = std::chrono::steady_clock::now();
    head_only_ = false;
    expires_after(seconds);
    parser_->eager(false);  // it stops behind the head
    parse();
  }

  // What Beast's async_read_header and async_read do, which are compiled for each kind of stream and handler. Like them,
  // it goes on later where there was nothing to read: other connections have their turn, and events of the socket from
  // before are over when the client is watched. The end of a pipeline is no client that leaves.
  void parse(bool just_read = false) {
    error_code error;
    while (!error && !(parser_->eager() ? parser_->is_done() : parser_->is_header_done())) {
      if (buffer_.size() > 0)
        buffer_.consume(parser_->put(buffer_.data(), error));
      else
        error = http::error::need_more;
    }
    if (error == http::error::need_more) return read_more();
    if (just_read) return parsed(error);
    asio::post(home_.io, [self = shared_from_this(), error] { self->parsed(error); });
  }
  void parsed(error_code e) {
    if (closed_) return;
    if (e) return refuse(e);
    if (!parser_->eager()) return head_is_read();
    request_.body = std::move(parser_->get().body());
    handle();
  }
  void read_more() {
    const size_t room = beast::read_size(buffer_, kBufferBytes);
    if (room == 0) return refuse(http::error::buffer_overflow);
    channel_->read_some(buffer_.prepare(room), [self = shared_from_this()](error_code e, size_t count) {
      if (self->closed_) return;
      self->buffer_.commit(count);
      if (e == asio::error::eof) {
        e = http::error::end_of_stream;
        if (self->parser_->got_some()) self->parser_->put_eof(e);
      }
      if (e) return self->refuse(e);
      self->parse(true);
    });
  }

  void head_is_read() {
    state_ = State::reading;
    const auto& head = parser_->get();
    keep_alive_ = head.keep_alive();
    old_ = head.version() < 11;
    request_ = {};
    request_.method = std::string(head.method_string());
    head_only_ = request_.method == "HEAD";
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
    expires_after(home_.limits.body_seconds);
    parser_->eager(true);
    if (expect.empty() || parser_->is_done()) return parse();
    head_ = "HTTP/1.1 100 Continue\r\n\r\n";
    write(head_, {}, [this] { parse(); });
  }

  void handle() {
    state_ = State::answering;
    expires_never();
    watch();
    const auto reply = std::make_shared<Answer>(shared_from_this());
    try {
      home_.handler(std::move(request_), reply);
    } catch (const std::exception&) {
      reply->send(error_answer(500, "the server failed"));
    }
  }

  // A client that closes its end while it is answered has gone. Data is its next request, or the alert by which TLS
  // ends: what comes behind it is looked for from time to time.
  void watch() {
    channel_->socket().async_wait(tcp::socket::wait_read,
                                  [self = shared_from_this(), turn = turn_](error_code e) {
                                    if (!e && turn == self->turn_) self->look();
                                  });
  }
  void look() {
    pollfd p{channel_->socket().native_handle(), POLLRDHUP, 0};
    if (::poll(&p, 1, 0) > 0) {
      gone_ = true;
      return;
    }
    look_again_.expires_after(std::chrono::milliseconds(100));
    look_again_.async_wait([self = shared_from_this(), turn = turn_](error_code e) {
      if (!e && turn == self->turn_) self->look();
    });
  }

  HttpResponse too_large() const {
    return error_answer(413, fmt::format("a body has {} bytes at most", home_.limits.body_bytes));
  }

  void refuse(error_code e) {
    if (e == http::error::end_of_stream) return close();
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
    response_ = head_of(r, keep);
    response_.body() = std::move(r.body);
    response_.prepare_payload();
    head_ = text_of(response_);
    const std::string_view body = response_.body();
    expires_after(home_.limits.write_seconds);
    write(head_, head_only_ ? "" : body, [this, keep] { answered(keep); });
  }

  // All but how long its body is.
  http::response<http::string_body> head_of(const HttpResponse& r, bool keep) const {
    http::response<http::string_body> head(static_cast<http::status>(r.status), old_ ? 10 : 11);
    head.set(http::field::server, "lockstep");
    if (!r.type.empty()) head.set(http::field::content_type, r.type);
    for (const auto& [name, value] : r.headers) head.set(name, value);
    head.set("X-Content-Type-Options", "nosniff");
    head.keep_alive(keep);
    return head;
  }

  // Both stay as they are until `then`.
  void write(std::string_view head, std::string_view body, std::function<void()> then) {
    channel_->write({asio::buffer(head), asio::buffer(body)},
                    [self = shared_from_this(), then = std::move(then)](error_code e, size_t) {
                      if (e || self->closed_) return self->close();
                      then();
                    });
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
    auto head = head_of(r, keep_alive_ && !old_);
    head.chunked(!old_);
    head_ = text_of(head);
    expires_after(home_.limits.write_seconds);
    write(head_, {}, [this] {
      parts_->listen([weak = weak_from_this(), &io = home_.io] {
        asio::post(io, [weak] {
          if (const auto c = weak.lock(); c && !c->writing_part_) c->write_part();
        });
      });
      write_part();
    });
  }
  void write_part() {
    if (closed_ || !parts_) return;
    writing_part_ = true;
    quiet_.cancel();
    const bool more = parts_->take(part_);
    if (part_.empty() && more) {
      writing_part_ = false;
      expires_never();
      return wait_for_part();
    }
    const std::string last = old_ ? "" : "0\r\n\r\n";
    if (!part_.empty() && !old_) part_ = fmt::format("{:x}\r\n{}\r\n", part_.size(), part_);
    if (!more) part_ += last;
    expires_after(home_.limits.write_seconds);
    write(part_, {}, [this, more] {
      if (more) return write_part();
      end_parts();
    });
  }
  // Proxies and clients close what says nothing for long.
  void wait_for_part() {
    quiet_.expires_after(span_of(home_.limits.quiet_seconds));
    quiet_.async_wait([self = shared_from_this()](error_code e) {
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
    channel_->socket().cancel(ignored);
  }

  // The answer is the last. What the client still sends is read for a while and thrown away: were the socket closed with
  // it, TCP would take back the answer too.
  void end() {
    state_ = State::ending;
    expires_after(1);
    channel_->shutdown([self = shared_from_this()](error_code, size_t) { self->linger(); });
  }
  void linger() {
    error_code error;
    channel_->socket().shutdown(tcp::socket::shutdown_send, error);
    if (error || home_.open.size() > 2 * static_cast<size_t>(home_.limits.connections)) return close();
    throw_away();
  }
  void throw_away() {
    channel_->read_raw(asio::buffer(thrown_away_), [self = shared_from_this()](error_code e, size_t) {
      if (e) return self->close();
      self->throw_away();
    });
  }

  ConnectionHome& home_;
  const std::unique_ptr<Channel> channel_;
  beast::flat_buffer buffer_;
  asio::steady_timer deadline_, look_again_, quiet_;
  int64_t turn_ = 0;  // of watching
  std::array<char, 4096> thrown_away_;
  std::optional<http::request_parser<http::string_body>> parser_;
  http::response<http::string_body> response_;
  std::string head_;                   // of what is sent
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
  return std::make_shared<HttpConnection>(home, make_channel(std::move(socket), std::move(context)));
}

}  // namespace lockstep::serve
