// SPDX-License-Identifier: Apache-2.0
// A server of the test's own, with a small model.
#pragma once

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "runtime/data/dataset.h"
#include "tests/launch/small_run.h"
#include "tests/support/process.h"
#include "tests/support/raw_client.h"

namespace lockstep::testing {

inline std::string from_base64(const std::string& text) {
  static const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<uint32_t>(digits.find(c));
    count += 6;
    if (count >= 8) bytes += static_cast<char>(bits >> (count -= 8));
  }
  return bytes;
}

inline std::string to_base64(std::string bytes) {
  static const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  const size_t rest = bytes.size() % 3, padding = rest ? 3 - rest : 0;
  bytes.append(padding, '\0');
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const auto byte = [&](size_t k) { return static_cast<uint32_t>(static_cast<uint8_t>(bytes[i + k])); };
    const uint32_t bits = byte(0) << 16 | byte(1) << 8 | byte(2);
    for (int shift : {18, 12, 6, 0}) text += digits[bits >> shift & 63];
  }
  std::fill_n(text.rbegin(), padding, '=');
  return text;
}

class Serve : public SmallRun {
 protected:
  void fit(const std::string& run = "run", int seed = 0) {
    const Outcome o =
        lockstep(fmt::format("fit job.yaml --output {} --set hyperparameters.seed={}", run, seed));
    ASSERT_EQ(o.code, 0) << o.text;
  }
  // A model that reads text, on pictures of classes whose names are their captions.
  void fit_text_painter() {
    write_file(
        folder_.file("text.yaml"),
        "model:\n  name: text_to_image\n  tokenizer: " LOCKSTEP_SOURCE_DIR
        "/configs/data/clip_small\n"
        "  text_encoder: {vocab_size: 681, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1,\n"
        "    num_attention_heads: 2, max_position_embeddings: 24}\n"
        "  unet: {in_channels: 1, out_channels: 1, block_out_channels: [8], layers_per_block: 1,\n"
        "    down_block_types: [CrossAttnDownBlock2D], up_block_types: [CrossAttnUpBlock2D],\n"
        "    norm_num_groups: 4, attention_head_dim: 2, cross_attention_dim: 8}\n"
        "objective: diffusion\n"
        "inputs: {training: {dataset: mnist, path: ., captions: {template: 'a {}', dropout: 0.1}}}\n"
        "hyperparameters: {steps: 20, global_batch_size: 12, optimizer: {name: adamw, lr: 0.01}}\n"
        "sampling: {steps: 2, count: 2, guidance: 3}\n");
    ASSERT_EQ(lockstep("fit text.yaml --output run").code, 0);
  }
  void fit_painter(const std::string& run = "run") {
    write_file(
        folder_.file("job.yaml"),
        "job_name: test\nmodel:\n  name: unet2d\n  config: {in_channels: 1, out_channels: 1, "
        "block_out_channels: [4, 8], down_block_types: [DownBlock2D, AttnDownBlock2D], up_block_types: "
        "[AttnUpBlock2D, UpBlock2D], layers_per_block: 1, attention_head_dim: 4, norm_num_groups: 2, "
        "num_class_embeds: 11}\nobjective: {name: diffusion, label_dropout: 0.1}\n"
        "inputs: {training: {dataset: mnist, path: .}}\n"
        "sampling: {count: 1, steps: 4}\n"
        "hyperparameters: {steps: 4, global_batch_size: 12, optimizer: {name: sgd, lr: 0.01}}\n");
    fit(run);
  }
  void serve(const std::vector<std::string>& more = {}) {
    std::vector<std::string> command = {"serve", folder_.file("run"), "--port", "0"};
    command.insert(command.end(), more.begin(), more.end());
    start(command);
  }
  // Whatever words stand behind the program's name. It says where it listens.
  void start(std::vector<std::string> command, std::map<std::string, std::string> environment = {}) {
    command.insert(command.begin(), LOCKSTEP_BINARY);
    environment["XDG_CACHE_HOME"] = folder_.file("cache");
    server_ = std::make_unique<Process>(command, environment);
    ASSERT_TRUE(server_->wait_for("is served on http")) << server_->output();
    ASSERT_TRUE(server_->wait_for("/\n"));
    const std::string said = server_->output();
    port_ = std::atoi(said.c_str() + said.rfind(':') + 1);
    ASSERT_GT(port_, 0) << said;
  }
  std::string picture(int shade = 9) const {
    Image image{1, kSide, kSide, std::vector<uint8_t>(kSide * kSide)};
    for (size_t i = 0; i < image.pixels.size(); ++i)
      image.pixels[i] = static_cast<uint8_t>(i * static_cast<size_t>(shade));
    return encode_png(image);
  }
  static std::string message(const RawClient::Answer& a) {
    using nlohmann::json;
    const json j = json::parse(a.body, nullptr, false);
    if (!j.is_object() || !j.contains("error")) return a.body;
    const json& e = j["error"];
    return std::to_string(a.status) + " " + (e.contains("field") ? e["field"].get<std::string>() + " " : "") +
           e["message"].get<std::string>();
  }
  // Whether the condition comes true. What the server says meanwhile is read: a pipe that is full would stop it.
  template <class Condition>
  bool soon(Condition&& condition) {
    return eventually([&] {
      server_->wait_for("what it never says", std::chrono::milliseconds(5));
      return condition();
    });
  }
  // What a line of /metrics says of the model; -1: there is no such line, or no answer.
  int64_t metric(const std::string& name, const std::string& model = "run") {
    return metric_in(RawClient(port_).get("/metrics").body, name, model);
  }
  static int64_t metric_in(const std::string& text, const std::string& name, const std::string& model) {
    const std::string line = fmt::format("{}{{model=\"{}\"}} ", name, model);
    const size_t at = text.find(line);
    return at == std::string::npos ? -1 : std::atoll(text.c_str() + at + line.size());
  }
  // Whether the server comes to have so many requests that are not answered yet.
  bool soon_under_way(int64_t count) {
    return soon([&] { return metric("lockstep_requests_under_way") == count; });
  }
  int port_ = 0;
  std::unique_ptr<Process> server_;
};

}  // namespace lockstep::testing
