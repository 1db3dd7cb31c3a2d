// SPDX-License-Identifier: Apache-2.0
// HTTPS, with certificates that the tests make: openssl is there with ca-certificates, which the program needs.
#include <csignal>

#include "tests/launch/serve_support.h"

namespace lockstep::testing {
namespace {

using nlohmann::json;

class ServeTls : public Serve {
 protected:
  // NAME.pem and NAME.key, for localhost.
  void make_certificate(const std::string& name) const {
    const Outcome o = shell(
        fmt::format("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
                    "-keyout {0}.key -out {0}.pem -subj /CN=localhost -addext subjectAltName=DNS:localhost",
                    name));
    ASSERT_EQ(o.code, 0) << o.text;
  }
  void serve_with(const std::string& name) {
    serve({"--cert", folder_.file(name + ".pem"), "--key", folder_.file(name + ".key")});
    ASSERT_NE(server_->output().find("is served on https://127.0.0.1:"), std::string::npos);
  }
  // What is answered to these bytes by a server that `authority` vouches for.
  std::string ask(const std::string& bytes, const std::string& authority,
                  const std::string& more = "") const {
    write_file(folder_.file("question"), bytes);
    return shell(fmt::format("openssl s_client -quiet -connect 127.0.0.1:{} -verify_return_error "
                             "-verify_hostname localhost -CAfile {}.pem {} < {}",
                             port_, authority, more, folder_.file("question")))
        .text;
  }
  static bool holds(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }
  static constexpr const char* kPing = "GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
};

TEST_F(ServeTls, AnswersOverTlsAlone) {
  fit();
  make_certificate("good");
  make_certificate("other");
  serve_with("good");
  EXPECT_TRUE(holds(ask(kPing, "good"), "HTTP/1.1 200 OK")) << ask(kPing, "good");
  EXPECT_TRUE(holds(ask(kPing, "good", "-tls1_2"), "HTTP/1.1 200 OK"));
  EXPECT_FALSE(holds(ask(kPing, "good", "-tls1_1 -cipher ALL:@SECLEVEL=0"), "HTTP/1.1"));
  EXPECT_TRUE(holds(ask(kPing, "other"), "verify error"));
  // Two requests on one connection, the first with a body.
  const std::string body = picture(),
                    post = fmt::format(
                        "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
                        "Content-Length: {}\r\n\r\n",
                        body.size());
  const std::string both = ask(post + body + kPing, "good");
  EXPECT_TRUE(holds(both, "\"probabilities\"")) << both;
  EXPECT_NE(both.find("HTTP/1.1 200 OK"), both.rfind("HTTP/1.1 200 OK"));
  // Who speaks plainly gets no answer, and harms nobody; who leaves in the handshake neither.
  EXPECT_EQ(RawClient(port_).get("/ping").status, 0);
  for (const std::string& part : {std::string(), std::string("\x16\x03\x01\x02"), std::string(3000, '\x16')})
    RawClient(port_).send(part);
  EXPECT_TRUE(holds(ask(kPing, "good"), "HTTP/1.1 200 OK"));
}

TEST_F(ServeTls, AClientThatLeavesEndsItsDrawing) {
  fit_painter();
  make_certificate("good");
  serve_with("good");
  const std::string body = R"({"num_inference_steps": 1000, "num_images_per_prompt": 16})";
  const std::string draw = fmt::format(
      "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      "Content-Length: {}\r\n\r\n{}",
      body.size(), body);
  write_file(folder_.file("draw"), draw);
  Process client({"sh", "-c",
                  fmt::format("cd {}; (cat draw; until [ -e leave ]; do sleep 0.01; done) | "
                              "openssl s_client -quiet -no_ign_eof -connect 127.0.0.1:{}",
                              folder_.path(), port_)});
  const auto counted = [&](const std::string& name) {
    return metric_in(ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "good"),
                     name, "run");
  };
  EXPECT_TRUE(soon([&] { return counted("lockstep_evaluations_total") > 0; }));
  write_file(folder_.file("leave"), "");
  EXPECT_TRUE(soon([&] { return counted("lockstep_requests_under_way") == 0; }));
  EXPECT_LT(counted("lockstep_evaluations_total"), 1000);
}

TEST_F(ServeTls, TakesANewCertificateOnSighup) {
  fit();
  make_certificate("good");
  make_certificate("next");
  serve_with("good");
  ASSERT_EQ(shell("cp good.pem first.pem").code, 0);
  const auto put = [&](const std::string& name) {
    ASSERT_EQ(shell(fmt::format("cp {0}.pem good.pem", name)).code, 0);
    ASSERT_EQ(shell(fmt::format("cp {0}.key good.key", name)).code, 0);
  };
  put("next");
  server_->signal(SIGHUP);
  ASSERT_TRUE(server_->wait_for("the models were loaded again"));
  EXPECT_TRUE(holds(ask(kPing, "next"), "HTTP/1.1 200 OK"));
  EXPECT_FALSE(holds(ask(kPing, "first"), "HTTP/1.1"));
  // One that cannot be used is said, and the one before stays.
  write_file(folder_.file("good.pem"), "nothing\n");
  server_->signal(SIGHUP);
  ASSERT_TRUE(server_->wait_for("E_TLS"));
  EXPECT_TRUE(holds(ask(kPing, "next"), "HTTP/1.1 200 OK"));
  server_->signal(SIGTERM);
  EXPECT_EQ(server_->wait(), 0) << server_->output();
}

TEST_F(ServeTls, SaysWhichFileIsWrong) {
  fit();
  make_certificate("good");
  make_certificate("other");
  ASSERT_EQ(shell("openssl ec -in good.key -aes256 -passout pass:word -out locked.key").code, 0);
  write_file(folder_.file("empty"), "");
  const auto with = [&](const std::string& certificate, const std::string& key) {
    return lockstep(fmt::format("serve run --port 0 --cert {} --key {}", certificate, key));
  };
  expect(with("nowhere.pem", "good.key"), Exit::no_input, "nowhere.pem");
  expect(with("good.pem", "nowhere.key"), Exit::no_input, "nowhere.key");
  expect(with("empty", "good.key"), Exit::data, "E_TLS", "file=empty", "no certificate");
  expect(with("good.key", "good.key"), Exit::data, "E_TLS", "file=good.key", "no certificate");
  expect(with("good.pem", "good.pem"), Exit::data, "E_TLS", "file=good.pem", "no private key");
  expect(with("good.pem", "locked.key"), Exit::data, "E_TLS", "file=locked.key", "without a passphrase");
  expect(with("good.pem", "other.key"), Exit::config, "E_TLS", "file=other.key", "not the certificate's");
  expect(lockstep("serve run --port 0 --cert good.pem"), Exit::usage, "--cert and --key go together");
}

}  // namespace
}  // namespace lockstep::testing
