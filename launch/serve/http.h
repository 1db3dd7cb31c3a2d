// SPDX-License-Identifier: Apache-2.0
// An HTTP/1.1 server: one thread that reads and writes, handlers that answer when they can, from any thread.
//
// What Boost.Beast's parser lets pass and a server behind a proxy must not is refused here: transfer codings but
// `chunked`, chunks of HTTP/1.0, several or no Hosts, trailers that would add fields (RFC 9112, sections 6, 7).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace lockstep::serve {

struct HttpRequest {
  std::string method, path, query;             // path: decoded, without the query
  std::map<std::string, std::string> headers;  // names in lower case; of several the last
  std::string body;
  std::string peer;  // address

  const std::string& header(const std::string& name) const {
    static const std::string none;
    const auto it = headers.find(name);
    return it == headers.end() ? none : it->second;
  }
};

// A body that is made while it is sent. Its writer may be any thread; the connection takes what there is.
class BodyStream {
 public:
  void write(const std::string& bytes);
  void close();            // nothing follows
  size_t waiting() const;  // bytes that the client has not taken yet

  // The connection's side. take: what has been written since; whether more may follow.
  bool take(std::string& bytes);
  void listen(
      std::function<void()> listener);  // called after each write and at the end, by the writer's thread
  void abandon();                       // nobody reads it any more

 private:
  void wake();
  mutable std::mutex mutex_;
  std::string bytes_;
  std::function<void()> listener_;
  bool closed_ = false, abandoned_ = false;
};

struct HttpResponse {
  int status = 200;
  std::string type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::shared_ptr<BodyStream> stream = nullptr;  // instead of the body
};

// Where an answer goes. Only the first is sent.
class Reply {
 public:
  virtual ~Reply() = default;
  virtual void send(HttpResponse response) = 0;  // from any thread
  virtual bool gone() const = 0;                 // the client has closed its end: nobody waits for the answer
};

// Called by the server's thread: it must not take long.
using HttpHandler = std::function<void(HttpRequest, std::shared_ptr<Reply>)>;

struct HttpLimits {
  int64_t header_bytes = 8192;   // more: 431
  int64_t body_bytes = 6 << 20;  // more: 413
  // More: the one that has waited longest for its client ends; where all wait for the server, 503 at once.
  int64_t connections = 256;
  // Seconds until a request's head is there, its body, and the answer is taken.
  double head_seconds = 10, body_seconds = 30, write_seconds = 30;
  double idle_seconds = 60;   // between requests of a connection
  double quiet_seconds = 15;  // a stream says at least so often that it is there
};

// PEM files: a certificate with those that lead to it, and its key, without a passphrase. TLS 1.2 and 1.3.
struct TlsFiles {
  std::string certificate, key;
};

class HttpServer {
 public:
  // Listens from here on, over TLS where there are files for it. port 0: any free one. Errors: usage (64),
  // unavailable (69); of the files no_input (66), no_permission (77), data (65), config (78) where the key is another's.
  HttpServer(const std::string& address, int port, const HttpLimits& limits, HttpHandler handler,
             const std::optional<TlsFiles>& tls = std::nullopt);
  ~HttpServer();  // closes everything
  int port() const;
  // Reads the files for TLS again, for connections from here on. Errors as above; the ones before then stay.
  void renew_tls();
  // Connections end with the answer that they wait for; idle ones now. New ones are still answered.
  void drain();
  // Takes no more connections, and returns when the last has ended, or after so many seconds.
  void finish(double seconds);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lockstep::serve
