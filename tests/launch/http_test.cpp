// SPDX-License-Identifier: Apache-2.0
// The HTTP server by itself, with limits that a test can wait for.
#include "launch/serve/http.h"

#include <gtest/gtest.h>

#include <memory>
#include <mutex>
#include <thread>

#include "tests/support/process.h"
#include "tests/support/raw_client.h"

namespace lockstep::testing {
namespace {

using namespace lockstep::serve;

// It keeps what is asked; "/now" is answered at once.
class Http : public ::testing::Test {
 protected:
  // Replies lead to the server's connections.
  void TearDown() override {
    const std::lock_guard lock(mutex_);
    asked_.clear();
  }
  void listen(HttpLimits limits) {
    server_ = std::make_unique<serve::HttpServer>("127.0.0.1", 0, limits,
                                                  [this](const HttpRequest& r, std::shared_ptr<Reply> reply) {
                                                    if (r.path == "/now")
                                                      return reply->send({200, "text/plain", r.body});
                                                    const std::lock_guard lock(mutex_);
                                                    asked_.push_back(std::move(reply));
                                                  });
    port_ = server_->port();
  }
  // The reply to the nth request that waits, once it is there.
  std::shared_ptr<Reply> reply(size_t n) {
    std::shared_ptr<Reply> found;
    EXPECT_TRUE(eventually([&] {
      const std::lock_guard lock(mutex_);
      if (asked_.size() > n) found = asked_[n];
      return found != nullptr;
    }));
    return found;
  }
  std::mutex mutex_;
  std::vector<std::shared_ptr<Reply>> asked_;
  std::unique_ptr<serve::HttpServer> server_;
  int port_ = 0;
};

const char* const kAsk = "GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n";

TEST_F(Http, ConnectionsThatWaitForTheServerAreKept) {
  HttpLimits limits;
  limits.connections = 2;
  listen(limits);
  RawClient first(port_), second(port_);
  first.send(kAsk);
  reply(0);
  second.send(kAsk);
  reply(1);
  const auto refused = RawClient(port_).receive();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.header("Retry-After"), "1");
  reply(0)->send({200, "text/plain", "a"});
  reply(1)->send({200, "text/plain", "b"});
  EXPECT_EQ(first.receive().body, "a");
  EXPECT_EQ(second.receive().body, "b");
  // Both say nothing now: the first has done so longer, and makes room.
  EXPECT_EQ(RawClient(port_).get("/now").status, 200);
  EXPECT_TRUE(first.is_closed());
}

TEST_F(Http, AHeadAndABodyHaveTheirTime) {
  HttpLimits limits;
  limits.head_seconds = 0.2, limits.body_seconds = 0.2, limits.idle_seconds = 0.2;
  listen(limits);
  // A head without end, a byte at a time: each byte comes in time, the head does not.
  RawClient endless(port_);
  endless.send("GET /now HTTP/1.1\r\nHost: localhost\r\n");
  EXPECT_TRUE(eventually([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return !endless.send("X: 1\r\n");
  }));
  RawClient body(port_);
  body.send("POST /now HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345");
  EXPECT_TRUE(body.is_closed());
  RawClient idle(port_);
  EXPECT_EQ(idle.get("/now").status, 200);
  EXPECT_TRUE(idle.is_closed());
}

TEST_F(Http, BodiesComeInChunksOfAByte) {
  listen({});
  RawClient c(port_);
  c.send("POST /now HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
  std::string expected;
  for (int i = 0; i < 2000; ++i) {
    expected += static_cast<char>('a' + i % 26);
    c.send("1\r\n" + expected.substr(expected.size() - 1) + "\r\n");
  }
  EXPECT_EQ(c.ask("0\r\n\r\n").body, expected);
}

// The answer to HEAD has no body, and what stands behind it is the next answer.
TEST_F(Http, APipelineIsAnsweredToItsEnd) {
  listen({});
  const std::string now = " /now HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n", body = "\r\nbody";
  RawClient c(port_);
  c.send("POST" + now + body + "HEAD" + now + body + "POST" + now + "Connection: close\r\n" + body);
  const std::string all = c.rest();
  std::vector<std::string> bodies;
  for (size_t at = all.find("\r\n\r\n"); at != std::string::npos; at = all.find("\r\n\r\n", at + 4))
    bodies.push_back(all.substr(at + 4, all.find("HTTP/1.1 200", at) - at - 4));
  EXPECT_EQ(bodies, (std::vector<std::string>{"body", "", "body"})) << all;
}

TEST_F(Http, AnAnswerInPartsIsSentAsItIsMade) {
  HttpLimits limits;
  limits.quiet_seconds = 0.1;
  listen(limits);
  RawClient c(port_);
  c.send(kAsk);
  const auto stream = std::make_shared<BodyStream>();
  reply(0)->send({200, "text/event-stream", "", {}, stream});
  stream->write("data: 1\n\n");
  EXPECT_TRUE(eventually([&] { return stream->waiting() == 0; }));
  // It says that it is there where nothing else is said.
  std::this_thread::sleep_for(std::chrono::milliseconds(350));
  std::thread writer([&] {
    for (int i = 2; i < 100; ++i) stream->write("data: " + std::to_string(i) + "\n\n");
    stream->close();
  });
  const auto a = c.receive();
  writer.join();
  EXPECT_EQ(a.header("Content-Type"), "text/event-stream");
  EXPECT_EQ(a.header("Cache-Control"), "no-store");
  EXPECT_EQ(a.body.substr(0, 22), "data: 1\n\n: keepalive\n\n");
  EXPECT_EQ(a.body.substr(a.body.size() - 10), "data: 99\n\n");
  // The connection goes on.
  EXPECT_EQ(c.get("/now").status, 200);
}

TEST_F(Http, OldClientsGetAStreamThatEndsWithTheConnection) {
  listen({});
  RawClient c(port_);
  c.send("GET /later HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const auto stream = std::make_shared<BodyStream>();
  reply(0)->send({200, "text/event-stream", "", {}, stream});
  stream->write("data: 1\n\n");
  stream->close();
  const std::string all = c.rest();
  EXPECT_EQ(all.find("chunked"), std::string::npos);
  EXPECT_EQ(all.substr(all.find("\r\n\r\n") + 4), "data: 1\n\n");
}

TEST_F(Http, WhoeverLeavesAStreamIsNoticed) {
  listen({});
  {
    RawClient c(port_);
    c.send(kAsk);
    const auto stream = std::make_shared<BodyStream>();
    reply(0)->send({200, "text/event-stream", "", {}, stream});
    stream->write("data: 1\n\n");
    EXPECT_TRUE(eventually([&] { return stream->waiting() == 0; }));
    EXPECT_FALSE(reply(0)->gone());
  }
  EXPECT_TRUE(eventually([&] { return reply(0)->gone(); }));
  // One that is answered only after it has left.
  {
    RawClient c(port_);
    c.send(kAsk);
    reply(1);
  }
  EXPECT_TRUE(eventually([&] { return reply(1)->gone(); }));
  const auto stream = std::make_shared<BodyStream>();
  reply(1)->send({200, "text/event-stream", "", {}, stream});
  stream->write(std::string(100'000, 'x'));
  EXPECT_TRUE(eventually([&] { return stream->waiting() == 0; })) << "what nobody reads is not kept";
}

}  // namespace
}  // namespace lockstep::testing
