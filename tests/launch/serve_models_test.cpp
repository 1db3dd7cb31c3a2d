// SPDX-License-Identifier: Apache-2.0
// Several models behind one server, and models that change places while they are asked.
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <set>
#include <thread>

#include "tests/launch/serve_support.h"

namespace lockstep::testing {
namespace {

using nlohmann::json;

class ServeModels : public Serve {
 protected:
  // "current" leads to this run from here on.
  void lead_to(const std::string& run) const {
    ASSERT_EQ(::symlink(folder_.file(run).c_str(), folder_.file("next").c_str()), 0);
    ASSERT_EQ(::rename(folder_.file("next").c_str(), folder_.file("current").c_str()), 0);
  }
  json predicted(const std::string& run) {
    write_file(folder_.file("a.png"), picture());
    return json::parse(lockstep("predict " + run + " a.png --json").text)["probabilities"];
  }
  static std::string reload(RawClient& c) { return message(c.post("", "text/plain", "", "/models/reload")); }
};

TEST_F(ServeModels, NoRequestFailsOrIsMixedWhileTheModelIsSwapped) {
  fit("a", 1);
  fit("b", 2);
  const json of_a = predicted("a"), of_b = predicted("b");
  ASSERT_NE(of_a, of_b);
  lead_to("a");
  start({"serve", folder_.file("current"), "--port", "0"});
  // The lines about 2,000 requests are more than a pipe holds.
  std::jthread reader([&] { server_->wait_for("what it never says"); });
  RawClient operator_(port_);
  const auto model = [&] { return json::parse(operator_.get("/model").body)["model"].get<std::string>(); };
  const std::string name_of_a = model();
  constexpr int kRequests = 2000, kSwaps = 20, kClients = 4;
  std::atomic<int> asked = 0, failed = 0, mixed = 0;
  std::atomic<bool> swapped = false;  // all the swaps are over: until then the clients ask on
  std::array<std::atomic<int>, 2> by{};
  std::vector<std::jthread> clients;
  for (int i = 0; i < kClients; ++i)
    clients.emplace_back([&] {
      RawClient own(port_);
      while (asked++ < kRequests || !swapped) {
        const auto a = own.post(picture(), "image/png");
        if (a.status != 200) {
          ++failed;
          continue;
        }
        const json p = json::parse(a.body)["probabilities"];
        const bool says_a = a.header("X-Model") == name_of_a;
        if (p != (says_a ? of_a : of_b)) ++mixed;
        ++by[says_a ? 0 : 1];
      }
    });
  std::set<std::string> names = {name_of_a};
  for (int swap = 1; swap <= kSwaps; ++swap) {
    // Spread over the requests: the next one begins when its share of them has been asked.
    eventually([&] { return asked >= swap * kRequests / (kSwaps + 1); });
    lead_to(swap % 2 ? "b" : "a");
    const auto r = operator_.post("", "text/plain", "", "/models/reload");
    EXPECT_EQ(r.status, 200) << r.body;
    names.insert(json::parse(r.body)["models"][0]["model"].get<std::string>());
    EXPECT_EQ(model() == name_of_a, swap % 2 == 0);
  }
  swapped = true;
  for (auto& c : clients) c.join();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(mixed, 0);
  const int answered = by[0] + by[1];
  EXPECT_GE(answered, kRequests);
  EXPECT_GT(by[0], 0);
  EXPECT_GT(by[1], 0);
  EXPECT_EQ(names.size(), 2U);
  // Counters go on over the models.
  const std::string counted = fmt::format("lockstep_pictures_total{{model=\"current\"}} {}\n", answered);
  EXPECT_NE(operator_.get("/metrics").body.find(counted), std::string::npos)
      << operator_.get("/metrics").body;
  server_->signal(SIGTERM);
  reader.join();
  EXPECT_EQ(server_->wait(), 0);
}

TEST_F(ServeModels, ADrawingThatIsUnderWayIsFinishedByItsModel) {
  fit_painter("a");
  lead_to("a");
  start({"serve", folder_.file("current"), "--port", "0"});
  const std::string ask = R"({"seed": 5, "num_inference_steps": 300})";
  RawClient alone(port_);
  const auto expected = alone.post(ask);
  ASSERT_EQ(expected.status, 200);
  const auto evaluations = [&] { return metric("lockstep_evaluations_total", "current"); };
  const int64_t before = evaluations();
  RawClient::Answer drawn;
  std::jthread client([&] { drawn = RawClient(port_).post(ask); });
  EXPECT_TRUE(soon([&] { return evaluations() > before; }));
  write_job(kLayers);
  fit("b");
  lead_to("b");  // a classifier
  EXPECT_EQ(reload(alone).find("error"), std::string::npos);
  EXPECT_EQ(json::parse(alone.get("/model").body)["task"], "classify");
  client.join();
  EXPECT_EQ(drawn.body, expected.body);
}

TEST_F(ServeModels, WhatCannotBeLoadedLeavesTheOneBefore) {
  fit("a");
  lead_to("a");
  start({"serve", folder_.file("current"), "--port", "0"});
  ASSERT_EQ(::unlink(folder_.file("current").c_str()), 0);
  RawClient c(port_);
  EXPECT_EQ(reload(c), "500 could not be loaded, and the one before is served: current");
  EXPECT_EQ(c.post(picture(), "image/png").status, 200);
  EXPECT_TRUE(server_->wait_for("E_RUN_NONE"));
  // The same by a signal.
  server_->signal(SIGHUP);
  EXPECT_TRUE(server_->wait_for("\ncould not be loaded, and the one before is served: current"));
  lead_to("a");
  server_->signal(SIGHUP);
  EXPECT_TRUE(server_->wait_for("\nthe models were loaded again\n")) << server_->output();
  EXPECT_EQ(c.post(picture(), "image/png").status, 200);
  EXPECT_EQ(message(c.get("/models/reload")), "405 this route takes POST");
  server_->signal(SIGTERM);
  EXPECT_EQ(server_->wait(), 0) << server_->output();
}

TEST_F(ServeModels, RequestsChooseAmongThem) {
  fit("a");
  fit_painter("b");
  start({"serve", "--model", "digits=" + folder_.file("a"), "--model", "painter=" + folder_.file("b"),
         "--port", "0"});
  ASSERT_TRUE(server_->wait_for(folder_.file("b") + " is served on http://"));
  RawClient c(port_);
  const json models = json::parse(c.get("/models").body)["models"];
  ASSERT_EQ(models.size(), 2U);
  EXPECT_EQ(models[1]["name"], "painter");
  EXPECT_EQ(models[1]["model"].get<std::string>().substr(0, 8), "painter@");
  EXPECT_EQ(json::parse(c.get("/model").body)["task"], "classify");
  EXPECT_EQ(json::parse(c.get("/models/painter").body)["task"], "draw");
  // By the path, by the field, and the first where nothing is said.
  const std::string pictures = json{{"inputs", to_base64(picture())}, {"model", "digits"}}.dump();
  EXPECT_EQ(c.post(picture(), "image/png").status, 200);
  EXPECT_EQ(c.post(picture(), "image/png", "", "/models/digits/invoke").status, 200);
  EXPECT_EQ(c.post(pictures).status, 200);
  const auto drawn =
      c.post(R"({"num_inference_steps": 2})", "application/json", "", "/models/painter/invoke");
  EXPECT_EQ(drawn.status, 200) << drawn.body;
  EXPECT_EQ(drawn.header("X-Model"), models[1]["model"].get<std::string>());
  EXPECT_EQ(c.post(R"({"model": "painter", "num_inference_steps": 2})").status, 200);
  EXPECT_EQ(c.post(R"({"parameters": {"model": "painter", "num_inference_steps": 2}})").status, 200);
  EXPECT_EQ(message(c.post(R"({"model": "none"})")), "400 model is no model that is served");
  EXPECT_EQ(message(c.post(R"({"model": 1})")), "400 model is a string");
  EXPECT_EQ(message(c.post(pictures, "application/json", "", "/models/painter/invoke")),
            "400 model is not the one of the path");
  EXPECT_EQ(message(c.post("{}", "application/json", "", "/models/none/invoke")),
            "404 no model of this name is served");
  EXPECT_EQ(message(c.get("/models/none")), "404 no model of this name is served");
  EXPECT_EQ(message(c.get("/models/a/b")), "404 there is no such route");
  EXPECT_NE(c.get("/metrics").body.find("lockstep_model_info{model=\"digits\",version=\"digits@"),
            std::string::npos);
  EXPECT_EQ(json::parse(c.post("", "text/plain", "", "/models/reload").body)["models"], models);
}

TEST_F(ServeModels, AskForATokenBeyondThisMachine) {
  fit();
  write_file(folder_.file("token"), "s3cret\n");
  serve({"--host", "0.0.0.0", "--token-file", folder_.file("token")});
  RawClient c(port_);
  EXPECT_EQ(c.post("", "text/plain", "", "/models/reload").status, 401);
  EXPECT_EQ(c.post("", "text/plain", "Authorization: Bearer s3cret\r\n", "/models/reload").status, 200);
  serve({"--host", "0.0.0.0", "--no-token"});
  RawClient open(port_);
  EXPECT_EQ(reload(open), "403 beyond this machine models are loaded again with a token only");
}

TEST_F(ServeModels, AreNamedOnTheCommandLine) {
  expect(lockstep("serve --model a"), Exit::usage, "NAME=FOLDER");
  expect(lockstep("serve --model a/b=run"), Exit::usage, "a/b");
  expect(lockstep("serve --model reload=run"), Exit::usage, "reload");
  expect(lockstep("serve --model a=run --model a=other"), Exit::usage, "two models have the name 'a'");
  expect(lockstep("serve --model a=nowhere --port 0"), Exit::no_input, "E_RUN_NONE");
}

}  // namespace
}  // namespace lockstep::testing
