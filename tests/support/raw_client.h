// SPDX-License-Identifier: Apache-2.0
// A client of 127.0.0.1 that says whatever bytes a test wants.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

namespace lockstep::testing {

class RawClient {
 public:
  explicit RawClient(int port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(static_cast<uint16_t>(port));
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    timeval patience{300, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (::connect(socket_, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0) close();
  }
  ~RawClient() { close(); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  void close() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }
  bool send(std::string_view bytes) const {
    return ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
  }

  struct Answer {
    int status = 0;  // 0: the server closed the connection
    std::string head, body;
    std::string header(const std::string& name) const {
      const size_t at = head.find("\r\n" + name + ": ");
      if (at == std::string::npos) return "";
      const size_t begin = at + name.size() + 4;
      return head.substr(begin, head.find("\r\n", begin) - begin);
    }
  };
  Answer receive() {
    Answer a;
    size_t end = 0;
    while ((end = got_.find("\r\n\r\n")) == std::string::npos)
      if (!more()) return a;
    a.head = got_.substr(0, end + 2);
    got_.erase(0, end + 4);
    a.status = std::atoi(a.head.c_str() + 9);
    if (a.header("Transfer-Encoding") == "chunked") {
      for (;;) {
        while ((end = got_.find("\r\n")) == std::string::npos)
          if (!more()) return a;
        const size_t size = std::strtoull(got_.c_str(), nullptr, 16);
        got_.erase(0, end + 2);
        while (got_.size() < size + 2)
          if (!more()) return a;
        a.body += got_.substr(0, size);
        got_.erase(0, size + 2);
        if (size == 0) return a;
      }
    }
    const size_t length = static_cast<size_t>(std::atoll(a.header("Content-Length").c_str()));
    while (got_.size() < length && more()) {
    }
    a.body = got_.substr(0, length);
    got_.erase(0, a.body.size());
    return a;
  }
  void say_no_more() const { ::shutdown(socket_, SHUT_WR); }
  // What comes until the server closes its end.
  std::string rest() {
    while (more()) {
    }
    return std::exchange(got_, {});
  }
  // Whether the server closes its end, having said nothing more.
  bool is_closed() { return got_.empty() && !more() && got_.empty(); }

  Answer ask(const std::string& bytes) {
    send(bytes);
    return receive();
  }
  Answer get(const std::string& path, const std::string& more = "") {
    return ask("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n" + more + "\r\n");
  }
  Answer post(const std::string& body, const std::string& type = "application/json",
              const std::string& more = "", const std::string& path = "/invocations") {
    return ask("POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + type +
               "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + more + "\r\n" + body);
  }

 private:
  bool more() {
    char buffer[4096];
    const ssize_t n = ::recv(socket_, buffer, sizeof buffer, 0);
    if (n > 0) got_.append(buffer, static_cast<size_t>(n));
    return n > 0;
  }
  int socket_;
  std::string got_;
};

}  // namespace lockstep::testing
