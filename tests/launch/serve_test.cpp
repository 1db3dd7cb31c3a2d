// SPDX-License-Identifier: Apache-2.0
// `lockstep serve`: what clients are answered, well-meaning and other, and how it ends.
#include <csignal>
#include <filesystem>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/launch/serve_support.h"

namespace lockstep::testing {
namespace {

using nlohmann::json;

TEST_F(Serve, AClassifierAnswersAsPredictDoes) {
  fit();
  serve();
  write_file(folder_.file("a.png"), picture());
  const json predicted = json::parse(lockstep("predict run a.png --json").text);
  RawClient client(port_);
  EXPECT_EQ(client.get("/ping").status, 200);
  const auto raw = client.post(picture(), "image/png");
  ASSERT_EQ(raw.status, 200) << raw.body;
  EXPECT_EQ(json::parse(raw.body)["class"], predicted["class"]);
  EXPECT_EQ(json::parse(raw.body)["probabilities"], predicted["probabilities"]);
  // Two in one request, in their order.
  const auto both = client.post(json{{"inputs", {to_base64(picture(3)), to_base64(picture(9))}}}.dump());
  ASSERT_EQ(both.status, 200) << both.body;
  const json predictions = json::parse(both.body)["predictions"];
  ASSERT_EQ(predictions.size(), 2U);
  EXPECT_EQ(predictions[1]["probabilities"], predicted["probabilities"]);
  EXPECT_NE(predictions[0]["probabilities"], predicted["probabilities"]);
  // Answers are JSON.
  for (const char* type : {"application/json", "text/html, */*;q=0.8"})
    EXPECT_EQ(client.post(picture(), "image/png", fmt::format("Accept: {}\r\n", type)).status, 200) << type;
  EXPECT_EQ(message(client.post(picture(), "image/png", "Accept: application/x-npy\r\n")),
            "406 answers are application/json");
}

TEST_F(Serve, APainterDrawsWhatSampleDraws) {
  fit_painter();
  serve();
  ASSERT_EQ(lockstep("sample run --count 2 --class 3 --seed 5 --steps 4 --guidance 2 --each drawn").code, 0);
  RawClient client(port_);
  const auto a = client.post(R"({"class": "3", "num_images_per_prompt": 2, "height": 8, "width": 8,
      "parameters": {"seed": 5, "num_inference_steps": 4, "guidance_scale": 2}})");
  ASSERT_EQ(a.status, 200) << a.body;
  const json pictures = json::parse(a.body)["generated_images"];
  ASSERT_EQ(pictures.size(), 2U);
  EXPECT_EQ(from_base64(pictures[0]), read_file(folder_.file("drawn/000000-class-3.png")));
  EXPECT_EQ(from_base64(pictures[1]), read_file(folder_.file("drawn/000001-class-3.png")));
  EXPECT_EQ(json::parse(a.body)["seed"], 5);
  // As a picture, and whatever shares its evaluations.
  const std::string expected = from_base64(pictures[0]);
  std::vector<std::jthread> clients;
  std::atomic<int> equal = 0;
  for (int i = 0; i < 8; ++i)
    clients.emplace_back([&, i] {
      RawClient own(port_);
      const std::string steps = i % 2 ? "9" : "4";
      const auto one =
          own.post(R"({"class": "3", "seed": 5, "guidance_scale": 2, "num_inference_steps": )" + steps + "}",
                   "application/json", "Accept: image/png\r\n");
      if (one.header("Content-Type") == "image/png" && (i % 2 ? one.body != expected : one.body == expected))
        ++equal;
    });
  for (auto& c : clients) c.join();
  EXPECT_EQ(equal, 8);
}

TEST_F(Serve, APainterIsToldWhatToDraw) {
  fit_text_painter();
  serve();
  const Outcome drawn = lockstep(
      "sample run --prompt 'a 3' --prompt 'a 3' --negative-prompt 'a 5' --seed 5 --steps 4 --guidance 2 "
      "--each drawn");
  ASSERT_EQ(drawn.code, 0) << drawn.text;
  RawClient client(port_);
  const std::string asked =
      R"("num_images_per_prompt": 2, "negative_prompt": "a 5", "seed": 5, "num_inference_steps": 4, "guidance_scale": 2})";
  const auto a = client.post(R"({"prompt": ["a 3"], "height": 8, "width": 8, )" + asked);
  ASSERT_EQ(a.status, 200) << a.body;
  const json pictures = json::parse(a.body)["generated_images"];
  ASSERT_EQ(pictures.size(), 2U);
  EXPECT_EQ(from_base64(pictures[0]), read_file(folder_.file("drawn/000000.png")));
  EXPECT_EQ(from_base64(pictures[1]), read_file(folder_.file("drawn/000001.png")));
  // Texts of others in the same evaluations change nothing, and give their numbers back.
  std::vector<std::jthread> clients;
  std::atomic<int> right = 0;
  for (int i = 0; i < 12; ++i)
    clients.emplace_back([&, i] {
      RawClient own(port_);
      const std::string prompt = i % 2 ? R"(["a 1", "a 2"])" : R"("a 3")";
      const auto one = own.post(R"({"prompt": )" + prompt + ", " + asked);
      if (one.status != 200) return;
      const json got = json::parse(one.body)["generated_images"];
      right += i % 2 ? got.size() == 4 && got[0] != pictures[0] && got[0] != got[2] : got == pictures;
    });
  for (auto& c : clients) c.join();
  EXPECT_EQ(right, 12);
  // As Hugging Face's clients ask.
  const auto by_inputs = client.post(
      R"({"inputs": ["a 3"], "parameters": {"num_images_per_prompt": 2, "negative_prompt": "a 5", "seed": 5,
      "num_inference_steps": 4, "guidance_scale": 2}})");
  EXPECT_EQ(json::parse(by_inputs.body)["generated_images"], pictures) << by_inputs.body;
  EXPECT_EQ(message(client.post(R"({"inputs": 3})")), "400 inputs is a string or a list of strings");
  EXPECT_EQ(message(client.post(R"({"inputs": "a 3", "prompt": "a 3"})")),
            "400 prompt is given as inputs too");
  EXPECT_EQ(message(client.post(R"({"seed": 5})")), "400 prompt is missing: what to draw");
  EXPECT_EQ(message(client.post(R"({"prompt": 3})")), "400 prompt is a string or a list of strings");
  EXPECT_EQ(message(client.post(R"({"prompt": ")" + std::string(10001, 'a') + "\"}")),
            "400 prompt has more than 10000 bytes");
  EXPECT_EQ(message(client.post(R"({"prompt": "a", "class": "3"})")),
            "400 class is no field that this model knows");
  const json fits = json::parse(client.post(R"({"prompt": ""})").body);
  EXPECT_EQ(fits["generated_images"].size(), 1U);
  EXPECT_FALSE(fits.contains("left_out"));
  std::string words = "a";
  for (int i = 0; i < 21; ++i) words += " red";
  const auto cut = client.post(R"({"prompt": ")" + words + R"( seven", "negative_prompt": "two"})");
  EXPECT_EQ(json::parse(cut.body)["left_out"], json({"seven", ""})) << cut.body;
  EXPECT_TRUE(json::parse(client.get("/model").body)["prompts"]);
}

TEST_F(Serve, SaysWhichFieldIsWrong) {
  fit_painter();
  serve();
  RawClient c(port_);
  EXPECT_EQ(message(c.post("{")), "400 the body is no JSON");
  EXPECT_EQ(message(c.post("[1]")), "400 the body is no JSON object");
  EXPECT_EQ(message(c.post("{}", "text/plain")), "415 application/json is read here");
  EXPECT_EQ(message(c.post(R"({"colour": 1})")), "400 colour is no field that this model knows");
  EXPECT_EQ(message(c.post(R"({"class": "cat"})")), "400 class is no class of this model");
  EXPECT_EQ(message(c.post(R"({"class": 3})")), "400 class is a string or a list of strings");
  EXPECT_EQ(message(c.post(R"({"height": 64})")), "400 height pictures here are 8x8 (width x height)");
  EXPECT_EQ(message(c.post(R"({"num_images_per_prompt": 17})")),
            "400 num_images_per_prompt is a whole number from 1 to 16");
  EXPECT_EQ(message(c.post(R"({"num_inference_steps": 2.5})")),
            "400 num_inference_steps is a whole number from 1 to 1000");
  EXPECT_EQ(message(c.post(R"({"guidance_scale": "high"})")), "400 guidance_scale is a number from 0 to 100");
  EXPECT_EQ(message(c.post(R"({"seed": 1e3})")),
            "400 seed is a whole number from 0 to 2^64 - 1, or -1 for a random one");
  EXPECT_EQ(message(c.post(R"({"seed": 1, "parameters": {"seed": 2}})")), "400 seed is given twice");
  EXPECT_EQ(message(c.post(R"({"sampler": "magic"})")).substr(0, 11), "400 sampler");
  EXPECT_EQ(message(c.post(std::string(100000, '['))), "400 JSON is nested more than 32 deep");
  EXPECT_EQ(message(c.get("/nothing")), "404 there is no such route");
  EXPECT_EQ(message(c.get("/invocations")), "405 this route takes POST");
  EXPECT_EQ(c.get("/ping").status, 200);
}

TEST_F(Serve, RefusesWhatAProxyMightReadOtherwise) {
  fit();
  serve({"--max-body-mb", "1"});
  const std::string get = "GET /ping HTTP/1.1\r\n",
                    post = "POST /invocations HTTP/1.1\r\nHost: localhost\r\n";
  const auto status = [&](const std::string& bytes) {
    RawClient c(port_);
    return c.ask(bytes).status;
  };
  EXPECT_EQ(status(get + "\r\n"), 400) << "no Host";
  EXPECT_EQ(status(get + "Host: localhost\r\nHost: localhost\r\n\r\n"), 400);
  EXPECT_EQ(status(get + "Host: elsewhere.example\r\n\r\n"), 200) << "health is everybody's";
  EXPECT_EQ(status("GET /model HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n"), 403);
  EXPECT_EQ(status(post + "Transfer-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"), 400);
  EXPECT_EQ(status(post + "Transfer-Encoding: xchunked\r\n\r\n"), 400);
  EXPECT_EQ(status(post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(status(post + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"), 400);
  EXPECT_EQ(status("POST /invocations HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(status("nonsense\r\n\r\n"), 400);
  EXPECT_EQ(status(get + "Host: localhost\r\nX: " + std::string(9000, 'x') + "\r\n\r\n"), 431);
  EXPECT_EQ(status(post + "Content-Length: 9999999\r\n\r\n"), 413);
  EXPECT_EQ(status(post + "Expect: 200-ok\r\nContent-Length: 2\r\n\r\n"), 417);
  // Trailers add no fields, and pipelined requests are answered in their order.
  RawClient c(port_);
  c.send(post +
         "Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nHost: evil\r\n\r\n" +
         get + "Host: localhost\r\n\r\n");
  EXPECT_EQ(message(c.receive()).substr(0, 13), "400 pictures ");
  EXPECT_EQ(c.receive().status, 200);
  // A client that asks first whether it may send.
  RawClient asks(port_);
  asks.send(post + "Content-Type: image/png\r\nExpect: 100-continue\r\nContent-Length: " +
            std::to_string(picture().size()) + "\r\n\r\n");
  EXPECT_EQ(asks.receive().status, 100);
  EXPECT_EQ(asks.ask(picture()).status, 200);
  // Disconnects at every stage leave it as it is.
  const std::string whole = post +
                            "Content-Type: image/png\r\nContent-Length: " + std::to_string(picture().size()) +
                            "\r\n\r\n" + picture();
  for (size_t n = 0; n < whole.size(); n += 7) RawClient(port_).send(whole.substr(0, n));
  EXPECT_EQ(status(get + "Host: localhost\r\n\r\n"), 200);
}

// What the facts of the parser are; each row by itself is harmless or refused.
TEST_F(Serve, LivesThroughHostileRequests) {
  fit();
  serve({"--max-body-mb", "1"});
  const std::string post = "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n";
  const auto status = [&](const std::string& bytes) {
    RawClient c(port_);
    return c.ask(bytes).status;
  };
  const auto get = [](const std::string& fields) {
    return "GET /ping HTTP/1.1\r\nHost: localhost\r\n" + fields + "\r\n";
  };
  // Lengths that are none, or two.
  for (const std::string length : {"+5", "-1", "0x5", "", "18446744073709551616", "5, 6"})
    EXPECT_EQ(status(post + "Content-Length: " + length + "\r\n\r\n12345"), 400) << length;
  EXPECT_EQ(status(post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345"), 400);
  EXPECT_EQ(status(post + "Content-Length: 5, 5\r\n\r\n12345"), 400);
  EXPECT_EQ(status(post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(status(post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(status(post + "Transfer-Encoding: identity\r\n\r\n"), 400);
  EXPECT_EQ(status(post + "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"), 400);
  // Lines and fields that are none.
  EXPECT_EQ(status("GET /ping HTTP/1.1\r\nHost : localhost\r\n\r\n"), 400);
  EXPECT_EQ(status("GET /ping HTTP/1.1\nHost: localhost\n\n"), 400);
  EXPECT_EQ(status("GET /ping HTTP/1.1\rHost: localhost\r\r"), 400);
  EXPECT_EQ(status("GET /pi" + std::string(1, '\0') + "ng HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400);
  EXPECT_EQ(status("\r\nGET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400);
  EXPECT_EQ(status("GET /ping HTTP/1.2\r\nHost: localhost\r\n\r\n"), 400);
  EXPECT_EQ(status("GET /ping HTTP/2.0\r\nHost: localhost\r\n\r\n"), 400);
  EXPECT_EQ(status(get("X: a\r\n Host: evil\r\n")), 200) << "a field over two lines is one";
  EXPECT_EQ(status("GET http://elsewhere.example/model HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n"), 404);
  EXPECT_EQ(status("GET /" + std::string(9000, 'a') + " HTTP/1.1\r\nHost: localhost\r\n\r\n"), 431);
  // Chunks: extensions and trailers without end, a size that is none, too much in all, a byte at a time.
  const std::string chunked = post + "Transfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(status(chunked + "1;" + std::string(100'000, 'x') + "\r\nx\r\n0\r\n\r\n"), 431);
  EXPECT_EQ(status(chunked + "0\r\nX: " + std::string(100'000, 'x') + "\r\n\r\n"), 431);
  EXPECT_EQ(status(chunked + "zz\r\nx\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(status(chunked + "100001\r\n" + std::string(0x100001, 'x') + "\r\n0\r\n\r\n"), 413);
  std::string bytes;
  for (const char c : picture()) bytes += std::string("1\r\n") + c + "\r\n";
  EXPECT_EQ(status(chunked + bytes + "0\r\n\r\n"), 200);
  // A body that is refused for its length while it comes: its sender still reads why.
  EXPECT_EQ(status(post + "Content-Length: 2000000\r\n\r\n" + std::string(2'000'000, 'x')), 413);
  EXPECT_EQ(status(post + "Content-Length: " + std::to_string(picture().size()) + "\r\n\r\n" + picture()),
            200);
}

// Many more connections than the server takes, that say nothing or begin and never end: those that have waited longest
// make room, and whoever asks is answered throughout.
TEST_F(Serve, AThousandSlowConnectionsKeepNobodyOut) {
  fit();
  serve();
  const auto descriptors = [&] {
    return std::distance(std::filesystem::directory_iterator(fmt::format("/proc/{}/fd", server_->pid())), {});
  };
  std::vector<std::unique_ptr<RawClient>> slow;
  for (int i = 0; i < 1000; ++i) {
    slow.push_back(std::make_unique<RawClient>(port_));
    if (i % 2) slow.back()->send("GET /ping HTTP/1.1\r\nX: ");
    if (i % 50 != 0) continue;
    EXPECT_EQ(RawClient(port_).get("/ping").status, 200) << i;
    EXPECT_EQ(RawClient(port_).post(picture(), "image/png").status, 200) << i;
  }
  EXPECT_LE(descriptors(), 256 + 64) << "connections are bounded, and there is little else";
  EXPECT_TRUE(slow.front()->is_closed());
  EXPECT_EQ(RawClient(port_).post(picture(), "image/png").status, 200);
}

TEST_F(Serve, StartsAgainAtOnceWhereItWasKilled) {
  fit();
  serve();
  const int port = port_;
  RawClient held(port);  // a connection that the killed one leaves behind
  EXPECT_EQ(held.get("/ping").status, 200);
  server_->signal(SIGKILL);
  EXPECT_EQ(server_->wait(), 128 + SIGKILL);
  start({"serve", folder_.file("run"), "--port", std::to_string(port)});
  EXPECT_EQ(port_, port);
  EXPECT_EQ(RawClient(port).post(picture(), "image/png").status, 200);
}

TEST_F(Serve, PicturesAreJpegWhereThatIsAskedFor) {
  fit_painter();
  serve();
  RawClient c(port_);
  const auto ask = [&](const std::string& more, const std::string& accept = "") {
    return c.post(R"({"num_inference_steps": 2, "seed": 1)" + more + "}", "application/json",
                  accept.empty() ? "" : "Accept: " + accept + "\r\n");
  };
  const auto raw = ask("", "image/jpeg");
  EXPECT_EQ(raw.header("Content-Type"), "image/jpeg");
  EXPECT_EQ(raw.body.substr(0, 3), "\xFF\xD8\xFF");
  const auto coded = ask(R"(, "format": "jpeg")");
  EXPECT_EQ(json::parse(coded.body)["format"], "jpeg");
  EXPECT_EQ(from_base64(json::parse(coded.body)["generated_images"][0]), raw.body);
  EXPECT_EQ(ask("", "image/*").header("Content-Type"), "image/png");
  EXPECT_EQ(ask(R"(, "format": "jpeg")", "image/*").body, raw.body);
  EXPECT_EQ(ask("", "image/jpeg, image/png;q=0.5").body, raw.body);
  EXPECT_EQ(ask("", "image/jpeg, application/json").header("Content-Type"), "application/json");
  EXPECT_EQ(message(ask(R"(, "format": "jpeg")", "image/png")), "400 format is not what Accept asks for");
  EXPECT_EQ(message(ask(R"(, "format": "webp")")), "400 format is png or jpeg");
  EXPECT_EQ(message(ask("", "image/webp")), "406 answers are application/json, image/png or image/jpeg");
}

TEST_F(Serve, PagesOfOtherSitesAskOnlyWhereTheyMay) {
  fit();
  serve({"--cors", "https://friend.example", "--cors", "http://localhost:3000"});
  RawClient c(port_);
  const auto preflight = c.ask(
      "OPTIONS /invocations HTTP/1.1\r\nHost: localhost\r\nOrigin: https://friend.example\r\n"
      "Access-Control-Request-Method: POST\r\n\r\n");
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(preflight.header("Access-Control-Allow-Origin"), "https://friend.example");
  EXPECT_EQ(preflight.header("Access-Control-Allow-Methods"), "POST");
  EXPECT_EQ(preflight.header("Vary"), "Origin");
  const auto friendly = c.post(picture(), "image/png", "Origin: http://localhost:3000\r\n");
  EXPECT_EQ(friendly.status, 200);
  EXPECT_EQ(friendly.header("Access-Control-Allow-Origin"), "http://localhost:3000");
  const auto other = c.post(picture(), "image/png", "Origin: https://friend.example.evil\r\n");
  EXPECT_EQ(other.status, 403);
  EXPECT_EQ(other.header("Access-Control-Allow-Origin"), "");
  EXPECT_EQ(c.post(picture(), "image/png", "Origin: null\r\n").status, 403);
  EXPECT_EQ(c.post("", "text/plain", "Origin: https://evil.example\r\n", "/models/reload").status, 403);
  EXPECT_EQ(c.get("/model", "Origin: https://evil.example\r\n").header("Access-Control-Allow-Origin"), "");
  EXPECT_EQ(c.ask("OPTIONS /invocations HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n")
                .status,
            403);
  // The server's own page.
  EXPECT_EQ(c.post(picture(), "image/png", "Origin: http://localhost\r\n").status, 200);
  for (const std::string origin : {"*", "friend.example", "https://", "https://friend.example/"})
    expect(lockstep("serve run --cors '" + origin + "'"), Exit::usage, "--cors");
}

TEST_F(Serve, OneAddressHasItsShare) {
  fit_painter();
  serve({"--per-client", "2"});
  const auto long_one = [&] { return RawClient(port_).post(R"({"num_inference_steps": 300})").status; };
  std::vector<std::jthread> clients;
  std::atomic<int> drawn = 0;
  for (int i = 0; i < 2; ++i) clients.emplace_back([&] { drawn += long_one() == 200; });
  // Not by asking for pictures: what is drawn for this client would take a share.
  EXPECT_TRUE(soon_under_way(2));
  RawClient c(port_);
  const auto refused = c.post("{}");
  EXPECT_EQ(message(refused), "429 an address has 2 requests at once at most");
  EXPECT_EQ(refused.header("Retry-After"), "1");
  EXPECT_EQ(c.get("/model").status, 200);
  for (auto& client : clients) client.join();
  EXPECT_EQ(drawn, 2);
  // Also where clients go away, their share is free again.
  for (int i = 0; i < 4; ++i) {
    RawClient leaves(port_);
    leaves.send(
        "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
        "29\r\n\r\n{\"num_inference_steps\": 1000 }");
  }
  EXPECT_TRUE(soon([&] { return c.post(R"({"num_inference_steps": 2})").status == 200; }));
}

TEST_F(Serve, AsksForItsToken) {
  fit();
  write_file(folder_.file("token"), "s3cret\n");
  serve({"--token-file", folder_.file("token")});
  RawClient c(port_);
  EXPECT_EQ(c.get("/ping").status, 200);
  const auto none = c.get("/model");
  EXPECT_EQ(none.status, 401);
  EXPECT_EQ(none.header("WWW-Authenticate"), "Bearer");
  EXPECT_EQ(c.get("/model", "Authorization: Bearer s3cre\r\n").status, 401);
  EXPECT_EQ(c.get("/model", "Authorization: Bearer s3cret\r\n").status, 200);
  expect(lockstep("serve run --host 0.0.0.0 --port 0"), Exit::config, "E_SERVE_TOKEN", "--token-file");
}

TEST_F(Serve, AFullQueueIsSaidAtOnce) {
  fit_painter();
  serve({"--queue", "2", "--batch", "1"});
  std::vector<std::jthread> clients;
  std::atomic<int> drawn = 0, refused = 0, other = 0;
  for (int i = 0; i < 24; ++i)
    clients.emplace_back([&] {
      RawClient own(port_);
      const auto a = own.post(R"({"num_inference_steps": 200})");
      if (a.status == 200)
        ++drawn;
      else if (a.status == 503 && !a.header("Retry-After").empty())
        ++refused;
      else
        ++other;
    });
  for (auto& c : clients) c.join();
  EXPECT_GE(drawn, 2);  // those that wait, where all have come before the first is begun
  EXPECT_GT(refused, 0);
  EXPECT_EQ(other, 0);
}

TEST_F(Serve, AnswersWhatItHasTakenBeforeItStops) {
  fit_painter();
  serve();
  std::vector<std::jthread> clients;
  std::atomic<int> drawn = 0;
  for (int i = 0; i < 3; ++i)
    clients.emplace_back([&] {
      RawClient own(port_);
      if (own.post(R"({"num_inference_steps": 300})").status == 200) ++drawn;
    });
  EXPECT_TRUE(soon_under_way(3));
  server_->signal(SIGTERM);
  EXPECT_TRUE(soon([&] {
    const int status = RawClient(port_).get("/readyz").status;
    return status == 503 || status == 0;
  }));
  for (auto& c : clients) c.join();
  EXPECT_EQ(drawn, 3);
  EXPECT_EQ(server_->wait(), 0) << server_->output();
}

TEST_F(Serve, SaysWhatItCannotServe) {
  expect(lockstep("serve nowhere --port 0"), Exit::no_input, "E_RUN_NONE");
  expect(lockstep("serve"), Exit::usage);
  fit();
  expect(lockstep("serve run --port 70000"), Exit::usage, "--port");
  serve();
  expect(lockstep(fmt::format("serve run --port {}", port_)), Exit::unavailable, "E_PORT_BUSY");
}

}  // namespace
}  // namespace lockstep::testing
