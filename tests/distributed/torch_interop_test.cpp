// SPDX-License-Identifier: Apache-2.0
// Weights between Lockstep and PyTorch. tests/golden/check_torch.py compares both programs where there is a
// PyTorch; here stands what can be proven without: golden files that PyTorch wrote, and the format of ours to
// the byte.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "runtime/checkpoint/safetensors.h"
#include "tests/distributed/fit.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::torch_interop_test {
namespace {

using nlohmann::json;

const std::string kGolden = LOCKSTEP_SOURCE_DIR "/tests/golden/";

// A job on one rank; `model` is what stands below model:.
std::string job_of(const std::string& model, int steps, double lr) {
  return "job_name: interop\nmodel: " + model +
         "\ninputs:\n"
         "  training: {dataset: mnist, path: " LOCKSTEP_SOURCE_DIR
         "/configs/data/mnist, limit: 640, normalize: {mean: 0.1307, std: 0.3081}}\n"
         "  test: {dataset: mnist, path: " LOCKSTEP_SOURCE_DIR
         "/configs/data/mnist, limit: 1000}\n"
         "hyperparameters: {steps: " +
         std::to_string(steps) + ", global_batch_size: 64, optimizer: {name: sgd, lr: " + std::to_string(lr) +
         "}}\n";
}

// training/layers.yaml's net.
std::string layers_net(const std::string& batch_norm) {
  return "{layers: [{conv2d: {out_channels: 8, kernel: 3, padding: 1}}, " + batch_norm +
         ", silu, {avg_pool2d: 2}, {residual: {layers: ["
         "{conv2d: {out_channels: 16, kernel: 3, stride: 2, padding: 1, groups: 4}}, {group_norm: {groups: "
         "4}}, relu, {conv2d: {out_channels: 16, kernel: 3, padding: 2, dilation: 2}}], "
         "shortcut: [{conv2d: {out_channels: 16, kernel: 1, stride: 2, bias: false}}]}}, gelu, "
         "{avg_pool2d: {kernel: 3, stride: 2, padding: 1, count_include_pad: false}}, flatten, "
         "{linear: {out_features: 10, name: classifier}}]";
}

std::vector<json> answers(std::vector<std::string> command) {
  command.insert(command.begin(), LOCKSTEP_BINARY);
  command.push_back("--json");
  const auto ended = run(command, {{"XDG_CACHE_HOME", kTestCache}});
  EXPECT_EQ(ended.code, 0) << ended.output;
  std::vector<json> lines;
  std::istringstream in(ended.output);
  for (std::string line; ended.code == 0 && std::getline(in, line);) lines.push_back(json::parse(line));
  return lines;
}

struct Net {
  std::string name, model;  // the model without its closing brace
};
void PrintTo(const Net& n, std::ostream* out) { *out << n.name; }

class FromPyTorch : public ::testing::TestWithParam<Net> {};

// init_from takes PyTorch's file; a step with lr 0 then leaves it as it is, and what we compute with it is
// what PyTorch, in float64, has computed.
TEST_P(FromPyTorch, InitFromGivesItsLossAccuracyAndProbabilities) {
  const json golden = json::parse(read_file(kGolden + "interop.json")),
             net = golden.at("nets").at(GetParam().name);
  const std::string weights = kGolden + "training/" + net.at("weights").get<std::string>();
  TestFolder folder;
  const std::string run_folder = folder.file("run");
  write_file(folder.file("job.yaml"), job_of(GetParam().model + ", init_from: " + weights + "}", 1, 0));
  ASSERT_TRUE(fit(folder.file("job.yaml"), run_folder, {}));

  // Both round in float32 and add up in another order: some 1e-7 of each log-probability.
  const auto score = answers({"evaluate", run_folder});
  ASSERT_EQ(score.size(), 1u);
  EXPECT_EQ(score[0].at("count"), golden.at("images"));
  ASSERT_GT(net.at("closest_decision").get<double>(), 1e-5) << "the golden file depends on rounding";
  EXPECT_EQ(std::lround(score[0].at("accuracy").get<double>() * score[0].at("count").get<double>()),
            net.at("right").get<long>());
  EXPECT_NEAR(score[0].at("loss").get<double>(), net.at("loss").get<double>(), 2e-6);

  std::vector<std::string> predict = {"predict", run_folder};
  const auto& expected = net.at("log_probabilities");
  for (size_t i = 0; i < expected.size(); ++i)
    predict.push_back(kGolden + "digits/test-" + std::to_string(i) + ".png");
  const auto predicted = answers(predict);
  ASSERT_EQ(predicted.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i)
    for (size_t c = 0; c < 10; ++c)
      EXPECT_NEAR(std::log(predicted[i].at("probabilities").at(std::to_string(c)).get<double>()),
                  expected[i][c].get<double>(), 2e-6)
          << "image " << i << ", class " << c;

  const auto ours = SafetensorsFile::open(run_folder + "/model.safetensors"),
             theirs = SafetensorsFile::open(weights);
  EXPECT_EQ(ours->tensors().size(), theirs->tensors().size());
  for (const StoredTensor& t : theirs->tensors()) {
    const StoredTensor* o = ours->find(t.name);
    ASSERT_TRUE(o) << t.name;
    EXPECT_EQ(o->dtype, t.dtype) << t.name;
    EXPECT_EQ(o->shape, t.shape) << t.name;
    const bool counter = t.dtype == "I64";  // num_batches_tracked: one more
    EXPECT_TRUE(counter || std::ranges::equal(o->bytes, t.bytes)) << t.name;
  }
}

// momentum 0: the running statistics stay PyTorch's.
INSTANTIATE_TEST_SUITE_P(Nets, FromPyTorch,
                         ::testing::Values(Net{"mnist_convnet", "{name: mnist_convnet"},
                                           Net{"mnist_convnet_dropout", "{name: mnist_convnet_dropout"},
                                           Net{"layers", layers_net("{batch_norm2d: {momentum: 0}}")}),
                         [](const auto& test) { return test.param.name; });

struct Expected {
  std::string name, dtype;
  std::vector<int64_t> shape;
};

// What load_state_dict(strict=True) asks for, in a file that safetensors.torch.load_file takes: 8 bytes with
// the header's size, the header padded to a multiple of 8, the tensors back to back, "format": "pt".
void expect_file(const std::string& path, const std::vector<Expected>& expected) {
  const std::string bytes = read_file(path);
  ASSERT_GT(bytes.size(), 8u);
  uint64_t size = 0;
  for (int i = 7; i >= 0; --i) size = size << 8 | static_cast<unsigned char>(bytes[static_cast<size_t>(i)]);
  ASSERT_LE(size, bytes.size() - 8);
  EXPECT_EQ(size % 8, 0u) << "tensors are not aligned";
  json header = json::parse(bytes.substr(8, size));
  EXPECT_EQ(header.at("__metadata__"), (json{{"format", "pt"}}));
  header.erase("__metadata__");
  EXPECT_EQ(header.size(), expected.size()) << header.dump(1);
  size_t total = 0;
  std::vector<std::pair<size_t, size_t>> ranges;
  for (const Expected& e : expected) {
    ASSERT_TRUE(header.contains(e.name)) << e.name;
    const json& tensor = header.at(e.name);
    EXPECT_EQ(tensor.size(), 3u) << e.name;
    EXPECT_EQ(tensor.at("dtype"), e.dtype) << e.name;
    EXPECT_EQ(tensor.at("shape"), json(e.shape)) << e.name;
    size_t length = e.dtype == "I64" ? 8 : 4;
    for (int64_t n : e.shape) length *= static_cast<size_t>(n);
    const size_t begin = tensor.at("data_offsets").at(0), end = tensor.at("data_offsets").at(1);
    EXPECT_EQ(end - begin, length) << e.name;
    ranges.emplace_back(begin, end);
    total += length;
  }
  EXPECT_EQ(bytes.size(), 8 + size + total);
  std::ranges::sort(ranges);
  size_t at = 0;
  for (const auto& [begin, end] : ranges) {
    EXPECT_EQ(begin, at) << "a gap or an overlap";
    at = end;
  }
}

class ToPyTorch : public ::testing::Test {
 protected:
  // The final weights and those of the last checkpoint are the same file.
  void trains(const std::string& model, const std::vector<Expected>& expected) {
    TestFolder folder;
    write_file(folder.file("job.yaml"), job_of(model + "}", 2, 0.01));
    ASSERT_TRUE(fit(folder.file("job.yaml"), folder.file("run"), {}));
    for (const char* file : {"run/model.safetensors", "run/checkpoints/step-00000002/model.safetensors"})
      expect_file(folder.file(file), expected);
  }
};

TEST_F(ToPyTorch, ConvNet) {
  trains("{name: mnist_convnet", {{"conv1.weight", "F32", {10, 1, 5, 5}},
                                  {"conv1.bias", "F32", {10}},
                                  {"conv2.weight", "F32", {20, 10, 5, 5}},
                                  {"conv2.bias", "F32", {20}},
                                  {"fc.weight", "F32", {10, 320}},
                                  {"fc.bias", "F32", {10}}});
}

TEST_F(ToPyTorch, ConvNetDropout) {
  trains("{name: mnist_convnet_dropout", {{"conv1.weight", "F32", {10, 1, 5, 5}},
                                          {"conv1.bias", "F32", {10}},
                                          {"conv2.weight", "F32", {20, 10, 5, 5}},
                                          {"conv2.bias", "F32", {20}},
                                          {"fc1.weight", "F32", {50, 320}},
                                          {"fc1.bias", "F32", {50}},
                                          {"fc2.weight", "F32", {10, 50}},
                                          {"fc2.bias", "F32", {10}}});
}

TEST_F(ToPyTorch, LayersWithBatchNorm) {
  trains(layers_net("batch_norm2d"), {{"0.weight", "F32", {8, 1, 3, 3}},
                                      {"0.bias", "F32", {8}},
                                      {"1.weight", "F32", {8}},
                                      {"1.bias", "F32", {8}},
                                      {"1.running_mean", "F32", {8}},
                                      {"1.running_var", "F32", {8}},
                                      {"1.num_batches_tracked", "I64", {}},
                                      {"4.layers.0.weight", "F32", {16, 2, 3, 3}},
                                      {"4.layers.0.bias", "F32", {16}},
                                      {"4.layers.1.weight", "F32", {16}},
                                      {"4.layers.1.bias", "F32", {16}},
                                      {"4.layers.3.weight", "F32", {16, 16, 3, 3}},
                                      {"4.layers.3.bias", "F32", {16}},
                                      {"4.shortcut.0.weight", "F32", {16, 8, 1, 1}},
                                      {"classifier.weight", "F32", {10, 256}},
                                      {"classifier.bias", "F32", {10}}});
}

// The whole of it, where a Python with torch and safetensors is named.
TEST(PyTorch, BothWays) {
  const char* python = std::getenv("LOCKSTEP_TORCH_PYTHON");
  if (!python || !*python)
    GTEST_SKIP() << "LOCKSTEP_TORCH_PYTHON names no Python with torch (bench/peers/install makes one)";
  Process script({python, kGolden + "check_torch.py", "--lockstep", LOCKSTEP_BINARY},
                 {{"XDG_CACHE_HOME", kTestCache}});
  EXPECT_EQ(script.wait(), 0) << script.output();
  EXPECT_NE(script.output().find("\n0 failed\n"), std::string::npos) << script.output();
}

}  // namespace
}  // namespace lockstep::testing::torch_interop_test
