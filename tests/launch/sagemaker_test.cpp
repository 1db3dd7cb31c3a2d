// SPDX-License-Identifier: Apache-2.0
// `lockstep sagemaker serve` in a folder that stands for /opt/ml.
#include <csignal>

#include "tests/launch/serve_support.h"

namespace lockstep::testing {
namespace {

using nlohmann::json;

class SageMaker : public Serve {
 protected:
  // As the platform does it: the archive's files below /opt/ml/model, which is there and empty before.
  void unpack(const std::string& archive) const {
    const Outcome o =
        shell(fmt::format("sh -c 'rm -rf ml && mkdir -p ml/model && tar -C ml/model -xzf {}'", archive));
    ASSERT_EQ(o.code, 0) << o.text;
  }
  void pack(const std::string& how) const {
    const Outcome o = shell("tar -czf model.tar.gz " + how);
    ASSERT_EQ(o.code, 0) << o.text;
  }
  void serve_container(std::map<std::string, std::string> environment = {}) {
    environment["SAGEMAKER_BASE_DIR"] = folder_.file("ml");
    environment["SAGEMAKER_BIND_TO_PORT"] = "0";
    start({"sagemaker", "serve"}, environment);
  }
  Outcome refused(const std::string& environment) const {
    return shell(fmt::format("env SAGEMAKER_BASE_DIR=ml SAGEMAKER_BIND_TO_PORT=0 {} {} sagemaker serve",
                             environment, LOCKSTEP_BINARY));
  }
};

TEST_F(SageMaker, ServesAnArchiveInEveryLayout) {
  fit();
  // Files at the top, with "./" before their names, and in a folder, beside the folder for code that others have.
  ASSERT_EQ(shell("sh -c 'mkdir code && touch code/inference.py'").code, 0);
  for (const std::string how : {"-C run .", "run code", "-C run model.safetensors model.json"}) {
    SCOPED_TRACE(how);
    pack(how);
    unpack("model.tar.gz");
    serve_container();
    EXPECT_NE(server_->output().find("http://0.0.0.0:"), std::string::npos);
    RawClient c(port_);
    const auto ping = c.get("/ping", "X-Amzn-SageMaker-Custom-Attributes: a\r\n");
    EXPECT_EQ(ping.status, 200);
    EXPECT_EQ(ping.body, "");
    EXPECT_EQ(c.post(picture(), "application/x-image").status, 200);
    // The platform's own routers speak to it by the container's address.
    EXPECT_EQ(RawClient(port_).ask("GET /model HTTP/1.1\r\nHost: 172.17.0.2:8080\r\n\r\n").status, 200);
    server_->signal(SIGTERM);
    EXPECT_EQ(server_->wait(std::chrono::seconds(30)), 0) << server_->output();
  }
}

TEST_F(SageMaker, AnswersABatchTransform) {
  fit();
  pack("-C run .");
  unpack("model.tar.gz");
  serve_container({{"SAGEMAKER_BATCH", "true"},
                   {"SAGEMAKER_MAX_PAYLOAD_IN_MB", "1"},
                   {"SAGEMAKER_BATCH_STRATEGY", "MULTI_RECORD"},
                   {"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", "4"}});
  RawClient c(port_);
  EXPECT_EQ(
      json::parse(c.get("/execution-parameters").body),
      json::parse(R"({"MaxConcurrentTransforms": 4, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 1})"));
  EXPECT_EQ(json::parse(c.get("/model").body)["limits"]["seconds"], 600);
  EXPECT_EQ(
      RawClient(port_).ask("POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n").status,
      413);
  // Records in lines, answers in lines.
  const auto record = [&](int shade) { return json{{"inputs", to_base64(picture(shade))}}.dump() + "\n"; };
  const auto lines = c.post(record(3) + record(9) + "\n" + record(3), "application/jsonlines");
  ASSERT_EQ(lines.status, 200) << lines.body;
  EXPECT_EQ(lines.header("Content-Type"), "application/jsonlines");
  std::vector<json> answers;
  for (std::istringstream text(lines.body); text.peek() != EOF;) {
    std::string line;
    std::getline(text, line);
    answers.push_back(json::parse(line));
  }
  ASSERT_EQ(answers.size(), 3U);
  EXPECT_EQ(answers[0], answers[2]);
  EXPECT_NE(answers[0], answers[1]);
  EXPECT_EQ(answers[1], json::parse(c.post(record(9)).body));
  // One that is wrong is named; the server counts requests, not lines.
  const auto wrong = c.post(record(3) + "{\n" + record(3), "application/jsonlines");
  EXPECT_EQ(message(wrong), "400 the body is no JSON");
  EXPECT_EQ(wrong.header("X-Line"), "2");
  EXPECT_EQ(message(c.post("\n", "application/jsonlines")), "400 the body is empty");
  EXPECT_NE(c.get("/metrics").body.find("lockstep_requests_total{route=\"/invocations\",status=\"200\"} 2\n"),
            std::string::npos);
}

TEST_F(SageMaker, AcceptsAsTheToolkitsVariableSays) {
  fit_painter();
  pack("run");
  unpack("model.tar.gz");
  serve_container({{"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "image/png"}});
  RawClient c(port_);
  EXPECT_EQ(c.post(R"({"num_inference_steps": 2})").header("Content-Type"), "image/png");
  EXPECT_EQ(c.post(R"({"num_inference_steps": 2})", "application/json", "Accept: application/json\r\n")
                .header("Content-Type"),
            "application/json");
}

TEST_F(SageMaker, SaysWhatItCannotServe) {
  expect(refused(""), Exit::no_input, "E_SAGEMAKER_MODEL", "folder=ml/model");
  ASSERT_EQ(shell("mkdir -p ml/model").code, 0);
  expect(refused(""), Exit::no_input, "E_SAGEMAKER_MODEL", "empty", "tar -C RUN");
  write_file(folder_.file("ml/model/weights.bin"), "");
  expect(refused(""), Exit::no_input, "E_SAGEMAKER_MODEL", "weights.bin");
  ASSERT_EQ(
      shell("sh -c 'mkdir ml/model/a ml/model/b && touch ml/model/a/model.json ml/model/b/model.json'").code,
      0);
  expect(refused(""), Exit::config, "E_SAGEMAKER_MODEL", "a, b");
  expect(refused("HF_MODEL_ID=someone/model"), Exit::config, "E_SAGEMAKER", "HF_MODEL_ID");
  expect(refused("SAGEMAKER_MULTI_MODEL=true"), Exit::config, "E_SAGEMAKER", "SAGEMAKER_MULTI_MODEL");
  ASSERT_EQ(shell("rm -r ml/model/b").code, 0);
  expect(refused("SAGEMAKER_BIND_TO_PORT=http"), Exit::config, "E_SAGEMAKER", "SAGEMAKER_BIND_TO_PORT",
         "http");
  expect(refused("SAGEMAKER_BATCH_STRATEGY=ALL"), Exit::config, "E_SAGEMAKER", "ALL");
  expect(lockstep("sagemaker"), Exit::usage, "serve");
  expect(lockstep("sagemaker paint"), Exit::usage, "paint");
}

}  // namespace
}  // namespace lockstep::testing
