// SPDX-License-Identifier: Apache-2.0
// `lockstep bench serve`: what it counts is what the server has counted.
#include <csignal>
#include <thread>

#include "tests/launch/serve_support.h"

namespace lockstep::testing {
namespace {

class BenchServe : public Serve {
 protected:
  Outcome bench(const std::string& options, const std::string& scheme = "http") const {
    return lockstep(fmt::format("bench serve {}://localhost:{} {}", scheme, port_, options));
  }
  // The number behind a word at the beginning of a line; -1: there is none.
  static double number(const std::string& text, const std::string& word) {
    const size_t at = ("\n" + text).find("\n" + word);
    return at == std::string::npos ? -1 : std::atof(text.c_str() + at + word.size());
  }
  double counted(int status) {
    return number(RawClient(port_).get("/metrics").body,
                  fmt::format("lockstep_requests_total{{route=\"/invocations\",status=\"{}\"}}", status));
  }
  // The server's lines about many requests are more than a pipe holds.
  void read_along() {
    reader_ = std::thread([this] { server_->wait_for("what it never says"); });
  }
  void TearDown() override {
    if (!reader_.joinable()) return;
    server_->signal(SIGTERM);
    reader_.join();
  }
  std::thread reader_;
};

TEST_F(BenchServe, MeasuresAClassifier) {
  fit();
  serve();
  read_along();
  const Outcome o = bench("--clients 3 --seconds 0.5");
  ASSERT_EQ(o.code, 0) << o.text;
  const double answers = number(o.text, "answers");
  EXPECT_GT(answers, 3);
  EXPECT_EQ(answers, counted(200));
  EXPECT_EQ(number(o.text, "errors"), 0);
  EXPECT_EQ(number(o.text, "pictures/s"), -1);
  EXPECT_GE(number(o.text, "requests/s"), answers / 60);
  // Quantiles in their order, and the histogram's counts are all.
  double p50 = 0, p90 = 0, p99 = 0, max = 0, sum = 0;
  const size_t at = o.text.find("latency ms");
  ASSERT_EQ(
      std::sscanf(o.text.c_str() + at, "latency ms p50 %lf p90 %lf p99 %lf max %lf", &p50, &p90, &p99, &max),
      4);
  EXPECT_GT(p50, 0);
  EXPECT_LE(p50, p90);
  EXPECT_LE(p90, p99);
  EXPECT_LE(p99, max);
  for (size_t line = o.text.find("  <= "); line != std::string::npos; line = o.text.find("  <= ", line + 1))
    sum += std::atof(o.text.c_str() + o.text.find(" ms ", line) + 4);
  EXPECT_EQ(sum, answers);
}

TEST_F(BenchServe, MeasuresAPainterAndCountsRefusals) {
  fit_painter();
  serve({"--queue", "1", "--batch", "1"});
  read_along();
  Outcome o = bench("--clients 1 --seconds 0.5 --steps 2 --pictures 3");
  ASSERT_EQ(o.code, 0) << o.text;
  EXPECT_NEAR(number(o.text, "pictures/s"), 3 * number(o.text, "requests/s"),
              0.05 * 3 + 0.005);  // as both are rounded
  o = bench("--clients 16 --seconds 0.5 --steps 40");
  ASSERT_EQ(o.code, 0) << o.text;
  EXPECT_GT(number(o.text, "errors"), 0);
  EXPECT_EQ(number(o.text, "errors"), counted(503));
  EXPECT_NE(o.text.find("  503\n"), std::string::npos) << o.text;
}

TEST_F(BenchServe, AsksAModelThatReadsTextForSomething) {
  fit_text_painter();
  serve();
  read_along();
  for (const char* prompt : {"", " --prompt 'a 3'"}) {
    const Outcome o = bench(std::string("--clients 2 --seconds 0.3 --steps 2") + prompt);
    ASSERT_EQ(o.code, 0) << o.text;
    EXPECT_GT(number(o.text, "answers"), 0);
    EXPECT_EQ(number(o.text, "errors"), 0);
  }
}

TEST_F(BenchServe, SendsWhatItIsTold) {
  fit_painter();
  ASSERT_EQ(
      shell("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout a.key "
            "-out a.pem -subj /CN=localhost -addext subjectAltName=DNS:localhost")
          .code,
      0);
  write_file(folder_.file("token"), "s3cret\n");
  serve({"--cert", folder_.file("a.pem"), "--key", folder_.file("a.key"), "--token-file",
         folder_.file("token")});
  read_along();
  write_file(folder_.file("body.json"), R"({"num_inference_steps": 2, "seed": 3})");
  const std::string how = "--clients 2 --seconds 0.3 --body body.json --cacert a.pem";
  expect(bench(how, "https"), Exit::unavailable, "E_BENCH_SERVER", "401");
  const Outcome o = shell(fmt::format(
      "env LOCKSTEP_SERVE_TOKEN=s3cret {} bench serve https://localhost:{} {}", LOCKSTEP_BINARY, port_, how));
  ASSERT_EQ(o.code, 0) << o.text;
  EXPECT_GT(number(o.text, "answers"), 0);
  EXPECT_EQ(number(o.text, "errors"), 0);
  expect(
      shell(fmt::format("env LOCKSTEP_SERVE_TOKEN=s3cret {} bench serve https://localhost:{} --cacert a.pem "
                        "--seconds 0.1 --prompt a",
                        LOCKSTEP_BINARY, port_)),
      Exit::config, "E_PROMPT");
  // Another's certificate.
  expect(bench("--seconds 0.1", "https"), Exit::unavailable, "E_BENCH_SERVER", "certificate");
}

TEST_F(BenchServe, SaysWhatIsWrong) {
  expect(lockstep("bench serve http://127.0.0.1:1 --seconds 1"), Exit::unavailable, "E_BENCH_SERVER",
         "http://127.0.0.1:1/model");
  expect(lockstep("bench serve 127.0.0.1:8080"), Exit::usage, "no URL");
  expect(lockstep("bench serve"), Exit::usage, "URL");
  expect(lockstep("bench paint"), Exit::usage, "paint");
  expect(lockstep("bench serve http://127.0.0.1:1 --clients 0"), Exit::usage, "--clients");
  expect(lockstep("bench serve http://127.0.0.1:1 --type image/png"), Exit::usage, "--body");
  expect(lockstep("bench serve http://127.0.0.1:1 --body nowhere"), Exit::no_input, "nowhere");
}

}  // namespace
}  // namespace lockstep::testing
