// SPDX-License-Identifier: Apache-2.0
// Named tensors in and out: batches, ports, threads; what a batch is filled up with is not seen.
#include "models/inference_session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "models/model.h"
#include "models/objectives/diffusion.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/data/hash.h"
#include "runtime/training/state_io.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::inference_session_test {
namespace {

constexpr int64_t kSampleBytes = 2 * 5 * 3, kClassCount = 4;

ModelDescription classifier() {
  layer::Conv2d conv;
  conv.out_channels = 6;
  conv.kernel = {3, 3};
  layer::Linear last;
  last.out_features = kClassCount;
  ModelDescription d;
  d.model.layers = {named("conv2d", conv), named("relu", layer::Activation{"relu"}),
                    named("flatten", layer::Flatten{}), named("linear", last)};
  d.input = {2, 5, 3, kClassCount, {0.1f, 0.2f}, {0.5f, 0.6f}};
  d.class_names = {"a", "b", "c", "d"};
  return d;
}

ModelDescription denoiser(bool conditional) {
  ModelDescription d;
  d.model.name = "unet2d";
  UNet2DConfig& u = d.model.unet;
  u.sample_size = {8};
  u.in_channels = u.out_channels = 1;
  u.down_block_types = {"DownBlock2D"}, u.up_block_types = {"UpBlock2D"};
  u.block_out_channels = {8};
  u.layers_per_block = 1;
  u.norm_num_groups = 4;
  u.attention_head_dim = 4;
  if (conditional) u.num_class_embeds = 3;
  d.input = {1, 8, 8, conditional ? 3 : 0, {0.5f}, {0.5f}};
  d.config.diffusion.emplace().alphas_cumprod = {0.9, 0.5, 0.1};
  return d;
}

// A model whose weights were drawn and went through a file.
class Opened {
 public:
  explicit Opened(const ModelDescription& d, int64_t largest_batch, int threads = 1, bool in_place = false)
      : comm_(make_self_communicator()) {
    SessionOptions o;
    o.objective = make_objective(d.model, d.input, d.config);
    o.config = d.config;
    o.kernels.threads = 1;
    o.training = false;
    Session drawn(std::move(o), *comm_);
    drawn.model().initialise(11);
    const std::string file = folder_.path() + "/model.safetensors";
    export_model(file, model_tensors(drawn.model()));
    InferenceOptions options;
    options.kernels.threads = threads;
    options.largest_batch = largest_batch;
    options.in_place = in_place;
    weights_ = SafetensorsFile::open(file);
    session_ = std::make_unique<InferenceSession>(d, *weights_, options, *comm_);
    if (!in_place) weights_ = nullptr;
  }
  InferenceSession* operator->() { return session_.get(); }

 private:
  TestFolder folder_;
  std::unique_ptr<Communicator> comm_;
  std::shared_ptr<const SafetensorsFile> weights_;
  std::unique_ptr<InferenceSession> session_;
};

std::vector<uint8_t> some_pixels(int64_t count) {
  std::vector<uint8_t> p(static_cast<size_t>(count * kSampleBytes));
  uint32_t x = 5;
  for (uint8_t& value : p) value = static_cast<uint8_t>((x = x * 1664525 + 1013904223) >> 24);
  return p;
}

std::vector<float> log_probabilities(Opened& model, std::span<const uint8_t> pixels) {
  const auto count = static_cast<int64_t>(pixels.size()) / kSampleBytes;
  std::vector<float> log_p(static_cast<size_t>(count * kClassCount));
  const InputTensor images = input_tensor(kImages, pixels);
  const OutputTensor out{"log_probabilities", log_p};
  model->run(kClassify, count, std::span(&images, 1), std::span(&out, 1));
  return log_p;
}

std::string id_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return fmt::format("{} {} {}", e.code(), e.id(), e.message());
  }
  return "no error";
}

TEST(Batches, AreTheLaddersAndWasteAQuarterAtMost) {
  const std::vector<int64_t> ladder = {1, 2, 4, 8, 16, 20};
  using Sizes = std::vector<int64_t>;
  EXPECT_EQ(batches_of(ladder, 1), Sizes{1});
  EXPECT_EQ(batches_of(ladder, 3), Sizes{4});
  EXPECT_EQ(batches_of(ladder, 5), (Sizes{4, 1}));
  EXPECT_EQ(batches_of(ladder, 20), Sizes{20});
  EXPECT_EQ(batches_of(ladder, 15), Sizes{16});
  EXPECT_EQ(batches_of(ladder, 17), Sizes{20});
  EXPECT_EQ(batches_of(ladder, 47), (Sizes{20, 20, 8}));
  EXPECT_EQ(batches_of(std::vector<int64_t>{1}, 3), (Sizes{1, 1, 1}));
  for (int64_t n = 0; n < 100; ++n) {
    int64_t sum = 0;
    for (int64_t b : batches_of(ladder, n)) sum += b;
    EXPECT_GE(sum, n);
    EXPECT_LE(4 * (sum - n), sum) << n;
  }
}

TEST(InferenceSession, WeightsInPlaceGiveTheSameBitsAfterTheyWereReleasedToo) {
  Opened copied(classifier(), 4), in_place(classifier(), 4, 1, true);
  const auto pixels = some_pixels(3);
  const auto expected = log_probabilities(copied, pixels);
  EXPECT_EQ(log_probabilities(in_place, pixels), expected);
  for (Opened* model : {&copied, &in_place}) {
    (*model)->release(kClassify);
    EXPECT_EQ(log_probabilities(*model, pixels), expected);
  }
}

// Weights of more than 256 MB, zeros: their hash is told while they are read, and awaited before anything is given out.
TEST(InferenceSession, LargeWeightsAreVerifiedBeforeAResult) {
  ModelDescription d = classifier();
  layer::Linear wide;
  wide.out_features = int64_t{1} << 21;
  const auto last = d.model.layers.back();
  d.model.layers = {named("flatten", layer::Flatten{}), named("linear", wide), last};
  const int64_t counts[] = {kSampleBytes * wide.out_features, wide.out_features,
                            kClassCount * wide.out_features, kClassCount};
  const std::vector<int64_t> shapes[] = {{wide.out_features, kSampleBytes},
                                         {wide.out_features},
                                         {kClassCount, wide.out_features},
                                         {kClassCount}};
  const char* const names[] = {"1.weight", "1.bias", "2.weight", "2.bias"};
  nlohmann::ordered_json header;
  int64_t bytes = 0;
  for (int i = 0; i < 4; ++i) {
    const int64_t end = bytes + 4 * counts[i];
    header[names[i]] = {{"dtype", "F32"}, {"shape", shapes[i]}, {"data_offsets", {bytes, end}}};
    bytes = end;
  }
  std::string text = header.dump();
  text.resize(400, ' ');
  const TestFolder folder;
  const std::string path = folder.file("model.safetensors");
  write_file(path, std::string("\x90\x01\0\0\0\0\0\0", 8) + text);
  std::filesystem::resize_file(path, 8 + text.size() + static_cast<uint64_t>(bytes));
  const auto comm = make_self_communicator();
  const auto open = [&](const std::string& hash) {
    write_file(folder.file("SHA256SUMS"), hash + "  model.safetensors\n");
    const auto weights = open_model(folder.path(), {}, Verification::in_background);
    InferenceOptions options;
    options.kernels.threads = 1;
    return std::make_unique<InferenceSession>(d, *weights, options, *comm);
  };
  EXPECT_NE(id_of([&] { open(std::string(64, '0')); }).find("65 E_WEIGHTS_HASH"), std::string::npos);
  const auto model = open(sha256_hex(MappedFile(path).bytes()));
  const auto pixels = some_pixels(1);
  std::vector<float> log_p(kClassCount);
  const InputTensor images = input_tensor(kImages, pixels);
  const OutputTensor out{"log_probabilities", log_p};
  model->run(kClassify, 1, std::span(&images, 1), std::span(&out, 1));
  for (float p : log_p) EXPECT_NEAR(p, -std::log(float{kClassCount}), 1e-6);
}

TEST(InferenceSession, ASamplesBitsDoNotDependOnWhatSharesItsBatch) {
  Opened model(classifier(), 8);
  const auto pixels = some_pixels(23);
  const auto all = log_probabilities(model, pixels);
  for (int64_t count : {1, 2, 3, 5, 7, 8, 15, 23}) {
    const auto part =
        log_probabilities(model, std::span(pixels).first(static_cast<size_t>(count * kSampleBytes)));
    EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin())) << count;
  }
  for (int64_t i = 0; i < 23; ++i) {
    double sum = 0;
    for (int64_t c = 0; c < kClassCount; ++c)
      sum += std::exp(double{all[static_cast<size_t>(i * kClassCount + c)]});
    EXPECT_NEAR(sum, 1, 1e-6) << i;
  }
}

TEST(InferenceSession, ManyThreadsAskAtOnce) {
  Opened model(classifier(), 4);
  const auto pixels = some_pixels(6);
  const auto expected = log_probabilities(model, pixels);
  std::vector<std::thread> threads;
  std::array<int, 4> wrong{};
  for (int& mine : wrong)
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) mine += log_probabilities(model, pixels) != expected;
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, (std::array<int, 4>{}));
}

TEST(InferenceSession, PortsSayWhatTheyTake) {
  Opened model(classifier(), 2);
  EXPECT_EQ(text_of(model->inputs(kClassify)), "images u8 [2, 5, 3]");
  EXPECT_EQ(text_of(model->outputs(kClassify)), "features f32 [18], log_probabilities f32 [4]");
  Opened plain(denoiser(false), 1), conditional(denoiser(true), 1);
  EXPECT_EQ(text_of(plain->inputs(diffusion::kDenoise)), "images f32 [1, 8, 8], timesteps f32 []");
  EXPECT_EQ(text_of(conditional->inputs(diffusion::kDenoise)),
            "images f32 [1, 8, 8], timesteps f32 [], labels i32 []");
}

TEST(InferenceSession, ANameThatIsNoPortIsAnError) {
  Opened model(classifier(), 2);
  const auto pixels = some_pixels(1);
  std::vector<float> log_p(kClassCount), steps(1);
  const InputTensor images = input_tensor(kImages, pixels);
  const auto ask = [&](std::string_view program, std::vector<InputTensor> inputs, std::string_view output) {
    return id_of([&] {
      const OutputTensor out{output, log_p};
      model->run(program, 1, inputs, std::span(&out, 1));
    });
  };
  EXPECT_EQ(ask(kClassify, {images}, "log_probabilities"), "no error");
  EXPECT_EQ(ask(diffusion::kDenoise, {images}, "log_probabilities"),
            "64 E_PROGRAM this model has no program \"denoise\"");
  EXPECT_EQ(ask(kClassify, {images, input_tensor("timestep", steps)}, "log_probabilities"),
            "64 E_PORT no port is called \"timestep\"");
  EXPECT_EQ(ask(kClassify, {images, input_tensor(kTimesteps, steps)}, "log_probabilities"),
            "64 E_PORT no port is called \"timesteps\"");
  EXPECT_EQ(ask(kClassify, {}, "log_probabilities"), "64 E_PORT images was given no tensor");
  EXPECT_EQ(ask(kClassify, {images}, "probabilities"), "64 E_PORT no port is called \"probabilities\"");
  EXPECT_EQ(ask(kClassify, {images}, "features"),
            "64 E_PORT features takes 72 bytes of f32, was given 16 of f32");
  EXPECT_EQ(ask(kClassify, {input_tensor(kImages, std::span(pixels).first(16))}, "log_probabilities"),
            "64 E_PORT images takes 30 bytes of u8, was given 16 of u8");
  EXPECT_EQ(ask(kClassify, {input_tensor(kImages, steps)}, "log_probabilities"),
            "64 E_PORT images takes 30 bytes of u8, was given 4 of f32");
}

TEST(InferenceSession, RefusesWeightsOfAnotherModel) {
  ModelDescription other = classifier();
  std::get<layer::Conv2d>(other.model.layers[0].kind).out_channels = 5;
  TestFolder folder;
  const std::string file = folder.path() + "/w.safetensors";
  const std::vector<float> zero(4);
  StoredTensor t{"3.bias", "F32", {4}, std::as_bytes(std::span(zero))};
  export_model(file, std::span(&t, 1));
  const auto comm = make_self_communicator();
  EXPECT_EQ(id_of([&] { InferenceSession(other, *SafetensorsFile::open(file), {}, *comm); }).substr(0, 12),
            "65 E_TENSORS");
}

}  // namespace
}  // namespace lockstep::testing::inference_session_test
