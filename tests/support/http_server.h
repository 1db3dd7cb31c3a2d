// SPDX-License-Identifier: Apache-2.0
// A file server on 127.0.0.1 that misbehaves on request: cuts transfers, knows no ranges, stalls, lies.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace lockstep::testing {

class HttpServer {
 public:
  struct File {
    std::string content;
    int status = 200;
    bool ranges = true;      // answers Range with 206
    int64_t cut_after = -1;  // closes the connection after so many bytes of each body; -1: never
    bool stalls = false;     // after cut_after bytes sends nothing more instead of closing
    bool trickles = false;   // sends some 50 bytes a second
  };

  HttpServer() {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* any = reinterpret_cast<sockaddr*>(&address);
    if (listener_ < 0 || ::bind(listener_, any, size) != 0 || ::listen(listener_, 8) != 0 ||
        ::getsockname(listener_, any, &size) != 0)
      throw std::runtime_error("cannot listen on 127.0.0.1");
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~HttpServer() {
    stop_ = true;
    thread_.join();
    ::close(listener_);
  }
  HttpServer(const HttpServer&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/"; }
  void put(const std::string& name, File file) {
    const std::lock_guard lock(mutex_);
    files_[name] = std::move(file);
  }
  // "NAME" or "NAME from OFFSET", in the order asked for.
  std::vector<std::string> requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  static bool wait(int fd, short events) {
    pollfd p{fd, events, 0};
    return ::poll(&p, 1, 20) > 0;
  }

  void serve() {
    while (!stop_) {
      if (!wait(listener_, POLLIN)) continue;
      const int fd = ::accept(listener_, nullptr, nullptr);
      if (fd < 0) continue;
      answer(fd);
      ::close(fd);
    }
  }

  std::string read_request(int fd) const {
    std::string text;
    char buffer[4096];
    while (!stop_ && text.find("\r\n\r\n") == std::string::npos) {
      if (!wait(fd, POLLIN)) continue;
      const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
      if (n <= 0) break;
      text.append(buffer, static_cast<size_t>(n));
    }
    return text;
  }

  void send_all(int fd, const std::string& data) const {
    size_t sent = 0;
    while (!stop_ && sent < data.size()) {
      if (!wait(fd, POLLOUT)) continue;
      const ssize_t n = ::send(fd, data.data() + sent, data.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return;
      sent += static_cast<size_t>(n);
    }
  }

  void answer(int fd) {
    const std::string request = read_request(fd);
    const size_t slash = request.find('/');
    if (slash == std::string::npos) return;
    const std::string name = request.substr(slash + 1, request.find(' ', slash) - slash - 1);
    size_t from = 0;
    if (const size_t at = request.find("Range: bytes="); at != std::string::npos)
      from = std::stoul(request.substr(at + 13));
    File file{"", 404};
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(from > 0 ? name + " from " + std::to_string(from) : name);
      if (const auto it = files_.find(name); it != files_.end()) file = it->second;
    }
    const size_t whole = file.content.size();
    if (!file.ranges) from = 0;
    if (file.status == 200 && from > 0) file.status = from < whole ? 206 : 416;
    std::string body = file.status == 200 || file.status == 206 ? file.content.substr(from) : "";
    std::string head = "HTTP/1.1 " + std::to_string(file.status) +
                       " x\r\nConnection: close\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
    if (file.status == 206)
      head += "Content-Range: bytes " + std::to_string(from) + "-" + std::to_string(whole - 1) + "/" +
              std::to_string(whole) + "\r\n";
    if (file.cut_after >= 0) body.resize(std::min(body.size(), static_cast<size_t>(file.cut_after)));
    if (file.trickles) {
      send_all(fd, head + "\r\n");
      for (size_t i = 0; i < body.size() && !stop_ && !wait(fd, POLLIN); ++i) send_all(fd, body.substr(i, 1));
      body.clear(), head.clear();
    } else {
      send_all(fd, head + "\r\n" + body);
    }
    while (file.stalls && !stop_ && !wait(fd, POLLIN)) {
    }
    ::shutdown(fd, SHUT_WR);
  }

  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;
  std::map<std::string, File> files_;
  std::vector<std::string> requests_;
  std::thread thread_;
};

}  // namespace lockstep::testing
