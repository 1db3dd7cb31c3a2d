// SPDX-License-Identifier: Apache-2.0
// A text encoder and a UNet trained as one, and asked as two programs.
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/core/bf16.h"
#include "kernels/diffusion/noise.h"
#include "models/clip_text.h"
#include "models/objectives/diffusion.h"
#include "models/unet2d_condition.h"
#include "runtime/graph/kernel_table.h"
#include "runtime/training/session.h"
#include "runtime/training/state_io.h"

namespace lockstep::testing::text_objective_test {
namespace {

using diffusion::kDenoise, diffusion::kEncodeText;

constexpr int64_t kSide = 8, kTokenCount = 5, kWidth = 8, kVocabulary = 12, kBatch = 4,
                  kPixels = 3 * kSide * kSide;

uint8_t shade(int64_t picture) { return static_cast<uint8_t>(60 * picture); }
double colour(int64_t picture) { return (shade(picture) / 255.0 - 0.5) / 0.5; }

DiffusionNetworks tiny_networks() {
  ClipTextConfig text;
  text.vocab_size = kVocabulary, text.hidden_size = kWidth, text.intermediate_size = 16;
  text.num_hidden_layers = 2, text.num_attention_heads = 2, text.max_position_embeddings = kTokenCount;
  check(text);
  UNet2DConditionConfig unet;
  unet.in_channels = unet.out_channels = 3;
  unet.down_block_types = {"DownBlock2D", "CrossAttnDownBlock2D"};
  unet.up_block_types = {"CrossAttnUpBlock2D", "UpBlock2D"};
  unet.block_out_channels = {8, 16};
  unet.layers_per_block = {1};
  unet.norm_num_groups = 4;
  unet.cross_attention_dim = kWidth;
  unet.attention_head_dim = {2};
  return {make_unet2d_condition(unet),
          TextEncoder{[text](ModelContext& c, ValueId tokens) { return clip_text(text, c, tokens); },
                      kTokenCount, kWidth}};
}

// Four pictures of one colour each, and a text for each.
class TextObjective : public ::testing::Test {
 protected:
  explicit TextObjective(const std::vector<std::string>& trained = {},
                         const std::string& precision = "fp32") {
    input_ = {3, kSide, kSide, 0, {0.5f, 0.5f, 0.5f}, {0.5f, 0.5f, 0.5f}};
    diffusion_.alphas_cumprod = {1e-4};  // noise but for a hundredth
    diffusion_.prediction = "sample";
    for (int64_t i = 0; i < kBatch; ++i) {
      pixels_.insert(pixels_.end(), kPixels, shade(i));
      const auto word = static_cast<int32_t>(2 + i);
      tokens_.insert(tokens_.end(), {0, word, 1, 1, 1});
    }
    SessionOptions o = options(trained, precision);
    {
      // Kernels that no timing chooses, so that what is learned has the same bits each time.
      Session timed(options(trained, precision), *comm_);
      timed.prepare_training(kBatch);
      choose_first_kernels(o.pinned, timed.training(kBatch, 0).plan->graph, o.kernels);
    }
    session_ = std::make_unique<Session>(std::move(o), *comm_);
    session_->prepare_training(kBatch);
    session_->model().initialise(3);
    session_->executor().upload_model();
  }
  SessionOptions options(const std::vector<std::string>& trained, const std::string& precision) const {
    SessionOptions o;
    o.objective = diffusion::objective(tiny_networks(), input_, diffusion_);
    o.config.global_batch_size = kBatch;
    o.config.optimizer.name = "adam";
    o.config.clip_grad_norm = 1;
    o.config.trained = trained;
    o.config.precision = precision;
    o.kernels = {Device::cpu, 1, "test", ""};
    return o;
  }
  double train(int64_t step) {
    StepInputs in;
    in.set(kImages, pixels_), in.set(kTokens, tokens_);
    in.state.step = step, in.state.seed = 5, in.state.global_samples = kBatch, in.state.lr = 0.003f;
    session_->executor().run(*session_->training(kBatch, 0).bound, in);
    return double{session_->model().gradients.as<float>()[0]} / kBatch;
  }
  // What a program makes of these inputs.
  std::vector<float> ask(std::string_view name, StepInputs inputs, int64_t batch, const std::string& output) {
    for (const Program& p : diffusion::programs(tiny_networks(), input_, diffusion_)) {
      if (p.name != name) continue;
      session_->prepare(p, batch);
      auto& compiled = session_->program(p, batch);
      inputs.state.training = 0;
      session_->executor().run(*compiled.bound, inputs);
      const View& v = session_->executor().output(*compiled.bound, output);
      return {v.as<float>(), v.as<float>() + v.spec.shape.elements()};
    }
    return {};
  }

  InputShape input_;
  DiffusionConfig diffusion_;
  std::vector<uint8_t> pixels_;
  std::vector<int32_t> tokens_;
  std::unique_ptr<Communicator> comm_ = make_self_communicator();
  std::unique_ptr<Session> session_;
};

TEST_F(TextObjective, NetworksShareTheOptimizerAndHaveFilesOfTheirOwn) {
  const auto before = model_tensors(session_->model());
  const auto unet = of_network(before, kUNet), text = of_network(before, kTextEncoder);
  EXPECT_EQ(unet.size() + text.size(), before.size());
  const auto has = [](const std::vector<StoredTensor>& tensors, const std::string& name) {
    return std::any_of(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name == name; });
  };
  EXPECT_TRUE(has(unet, "conv_in.weight"));
  EXPECT_TRUE(has(text, "text_model.embeddings.token_embedding.weight"));
  std::map<std::string, std::vector<std::byte>> values;
  for (const auto& t : before) values[t.name] = {t.bytes.begin(), t.bytes.end()};
  train(0);
  for (const auto& t : model_tensors(session_->model()))
    EXPECT_FALSE(std::equal(t.bytes.begin(), t.bytes.end(), values.at(t.name).begin())) << t.name;
}

class FrozenNetwork : public TextObjective {
 protected:
  explicit FrozenNetwork(const std::string& precision = "fp32") : TextObjective({kUNet}, precision) {}
};
class FrozenNetworkInBf16 : public FrozenNetwork {
 protected:
  FrozenNetworkInBf16() : FrozenNetwork("bf16") {}
};

std::map<std::string, std::vector<std::byte>> bytes_of(const ModelState& model) {
  std::map<std::string, std::vector<std::byte>> values;
  for (const auto& t : model_tensors(model)) values[t.name] = {t.bytes.begin(), t.bytes.end()};
  return values;
}

TEST_F(FrozenNetwork, HasParametersAlone) {
  ModelState& model = session_->model();
  const ParameterTable& table = model.table;
  ASSERT_LT(table.trained_length, table.length);
  EXPECT_EQ(model.parameters.bytes(), table.length * 4);
  for (const AlignedBuffer& array : model.state) EXPECT_EQ(array.bytes(), table.trained_length * 4);
  for (const FlatEntry& e : table.parameters)
    EXPECT_EQ(table.trains(e), e.name.starts_with("unet.")) << e.name;
  for (const auto& t : optimizer_tensors(model)) EXPECT_NE(t.name.find("unet."), std::string::npos) << t.name;
  // Nothing of the step leads back into it.
  for (const Node& n : session_->training(kBatch, 0).plan->graph.nodes())
    EXPECT_FALSE(n.backward && n.name.starts_with("text_encoder.")) << n.op << " " << n.name;
}

TEST_F(FrozenNetwork, KeepsItsBitsWhileTheOtherLearns) {
  const auto before = bytes_of(session_->model());
  double first = 0, last = 0;
  constexpr int64_t kSteps = 200, kSome = 20;
  for (int64_t step = 0; step < kSteps; ++step) {
    const double loss = train(step);
    (step < kSome ? first : last) += step < kSome || step >= kSteps - kSome ? loss / kSome : 0;
  }
  EXPECT_LT(last, first / 2);
  for (const auto& [name, bytes] : bytes_of(session_->model()))
    EXPECT_EQ(bytes == before.at(name), name.starts_with("text_encoder.")) << name;
}

// Its copies in bf16 are written once, not by the optimizer.
TEST_F(FrozenNetworkInBf16, IsReadRounded) {
  train(0);
  const ModelState& model = session_->model();
  ASSERT_EQ(model.half.bytes(), model.table.length * 2);
  for (const FlatEntry& e : model.table.parameters)
    for (int64_t i = 0; i < e.shape.elements(); ++i)
      ASSERT_EQ(float(model.half.as<bf16>()[e.begin + i]),
                float(bf16(model.parameters.as<float>()[e.begin + i])))
          << e.name;
}

// From noise alone only the text tells which picture it was.
TEST_F(TextObjective, LearnsWhatTheTextsSay) {
  double last = 0;
  constexpr int64_t kSteps = 800, kLast = 20;
  for (int64_t step = 0; step < kSteps; ++step) {
    const double loss = train(step);
    if (step >= kSteps - kLast) last += loss / kLast;
  }
  // Colours -1, -0.53, -0.06, 0.41: who answers their mean whatever the text is off by their variance, 0.28.
  EXPECT_LT(last, 0.028);
  StepInputs in;
  in.set(kTokens, tokens_);
  const std::vector<float> text = ask(kEncodeText, in, kBatch, kText);
  ASSERT_EQ(text.size(), static_cast<size_t>(kBatch * kTokenCount * kWidth));
  std::vector<float> images(kBatch * kPixels);
  for (int64_t i = 0; i < kBatch; ++i)
    draw_noise(9, 0, 0, kPixels, images.data() + i * kPixels);  // the same for all
  const std::vector<float> steps(kBatch, 0.0f);
  StepInputs noise;
  noise.set(kImages, images), noise.set(kTimesteps, steps), noise.set(kText, text);
  const std::vector<float> predicted = ask(kDenoise, noise, kBatch, "prediction");
  ASSERT_EQ(predicted.size(), images.size());
  for (int64_t i = 0; i < kBatch; ++i) {
    double mean = 0;
    for (int64_t e = 0; e < kPixels; ++e)
      mean += double{predicted[static_cast<size_t>(i * kPixels + e)]} / kPixels;
    EXPECT_NEAR(mean, colour(i), 0.2) << i;  // less than half of what lies between two
  }
}

TEST_F(TextObjective, TakesTokensWhereOthersTakeLabels) {
  std::string ports;
  for (const Port& p : input_ports(session_->training(kBatch, 0).plan->graph)) ports += p.name + " ";
  EXPECT_EQ(ports, "images tokens ");
  StepInputs in;
  const std::vector<int32_t> labels(kBatch);
  in.set(kImages, pixels_), in.set(kLabels, labels);
  EXPECT_THROW(session_->executor().run(*session_->training(kBatch, 0).bound, in), Error);
}

}  // namespace
}  // namespace lockstep::testing::text_objective_test
