// SPDX-License-Identifier: Apache-2.0
// Text encoder, conditional UNet and autoencoder against transformers and diffusers:
// tests/golden/make_text_to_image.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "launch/job/net_config.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/data/hash.h"
#include "tests/models/net_run.h"
#include "tests/models/unet_formula.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::text_to_image_test {
namespace {

using nlohmann::json;

constexpr uint64_t kInput = 1000, kGradient = 2000, kProjection = 3000, kText = 4000;

const json& golden() {
  static const json file = json::parse(read_file(LOCKSTEP_SOURCE_DIR "/tests/golden/text_to_image.json"));
  return file;
}

std::vector<std::string> cases(const char* kind) {
  std::vector<std::string> names;
  for (const auto& [name, described] : golden().at(kind).items()) names.push_back(name);
  return names;
}

template <class Read>
auto read_as(Read read, const json& config) {
  TestFolder folder;
  const std::string path = folder.path() + "/config.json";
  std::ofstream(path) << config.dump();
  return read(path);
}

std::vector<float> formula(const Shape& shape, uint64_t seed, float scale) {
  std::vector<float> values(static_cast<size_t>(shape.elements()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = scale * formula_uniform(i, seed);
  return values;
}

Shape batch_of_two(const std::vector<int64_t>& rest) {
  Shape shape{2};
  for (int64_t d : rest) shape.push_back(d);
  return shape;
}

ValueId tokens_input(NetRun& net, const json& described) {
  const auto rows = described.at("tokens").get<std::vector<std::vector<int32_t>>>();
  std::vector<int32_t> flat;
  for (const auto& row : rows) flat.insert(flat.end(), row.begin(), row.end());
  return net.input("tokens", {2, static_cast<int64_t>(rows[0].size())}, flat);
}

void fill(const FlatEntry& e, std::span<float> values) { formula_weight(e.name, e.shape, values); }

// The largest difference from PyTorch's, relative to the largest number.
double distance(const NetRun& net, const std::string& tensor) {
  static const auto file =
      SafetensorsFile::open(LOCKSTEP_SOURCE_DIR "/tests/golden/text_to_image.safetensors");
  const StoredTensor* t = file->find(tensor);
  if (!t) throw std::runtime_error("no tensor " + tensor);
  const auto* expected = reinterpret_cast<const float*>(t->bytes.data());
  const auto got = net.output("y");
  EXPECT_EQ(got.size() * sizeof(float), t->bytes.size());
  double largest = 0, furthest = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    largest = std::max(largest, std::abs(double{expected[i]}));
    furthest = std::max(furthest, std::abs(double{got[i]} - double{expected[i]}));
  }
  return furthest / largest;
}

struct Golden : ::testing::TestWithParam<std::string> {};

// float32 on both sides, sums in other orders: 1e-6 is seen, ten times that is allowed.
using TextEncoderGolden = Golden;
TEST_P(TextEncoderGolden, LastHiddenState) {
  const json& described = golden().at("text_encoder").at(GetParam());
  NetRun net;
  const auto config = read_as(read_clip_text_config, described.at("config"));
  net.run(clip_text(config, net.context(), tokens_input(net, described)), fill);
  EXPECT_LE(distance(net, "text_encoder." + GetParam()), 1e-5);
}

// A parameter's gradient is held against its norm, its product with a vector and three of its numbers.
void expect_gradients(const NetRun& net, const json& expected) {
  for (const auto& [full, e] : expected.items()) {
    const std::string name = full.substr(full.find('.') + 1);
    const auto values = net.output("grad." + name);
    double squares = 0, product = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      squares += double{values[i]} * values[i];
      product += double{values[i]} * formula_uniform(i, kProjection);
    }
    double norm = e.at("norm");
    // In exact arithmetic 0: what adds the same to every key's score changes no softmax. What is left is
    // rounding of terms like those of the weight's gradient.
    if (full.ends_with("k_proj.bias"))
      norm = expected.at(full.substr(0, full.size() - 4) + "weight").at("norm");
    const double allowed = 5e-5 * norm;  // 6e-6 is seen
    EXPECT_NEAR(std::sqrt(squares), e.at("norm").get<double>(), allowed) << full;
    EXPECT_NEAR(product, e.at("product").get<double>(), allowed) << full;
    const std::vector<double> numbers = e.at("numbers");
    EXPECT_NEAR(values.front(), numbers[0], allowed) << full;
    EXPECT_NEAR(values[values.size() / 2], numbers[1], allowed) << full;
    EXPECT_NEAR(values.back(), numbers[2], allowed) << full;
  }
}

using ConditionUNetGolden = Golden;
TEST_P(ConditionUNetGolden, PredictionAndGradients) {
  const json& described = golden().at("unet").at(GetParam());
  const uint64_t index = described.at("index");
  const auto config = read_as(read_unet_condition_config, described.at("config"));
  const std::vector<int64_t> size = described.at("size");
  const Shape shape = batch_of_two({config.in_channels, size[0], size[1]});

  NetRun net;
  DenoiserInputs in;
  in.sample = net.input("sample", shape, formula(shape, kInput + index, 4));
  in.timesteps = net.input("timesteps", {2}, described.at("timesteps").get<std::vector<float>>());
  const bool encoder = described.contains("tokens");
  if (encoder) {
    const auto& text = golden().at("text_encoder").at(described.at("encoder").get<std::string>());
    in.text = clip_text(read_as(read_clip_text_config, text.at("config")), net.context(),
                        tokens_input(net, described));
  } else {
    const Shape text = batch_of_two(described.at("text"));
    in.text = net.input("text", text, formula(text, kText + index, 4));
  }
  const ValueId y = make_unet2d_condition(config)(net.context(), in);
  const Shape out = net.context().builder.spec(y).shape;
  net.run(y, fill, encoder ? formula(out, kGradient + index, 1) : std::vector<float>{});
  EXPECT_LE(distance(net, "unet." + GetParam()), 1e-5);
  if (encoder) expect_gradients(net, described.at("gradients"));
}

// What an autoencoder makes of an image, and of latents of another; both are formulas. `code`: what the golden file calls the
// former; latents up to half of `spread`, in either direction; of odd sizes the latents' are rounded up, or down.
template <class Read>
void expect_both_ways(Read read, const std::string& kind, const std::string& name, const char* code,
                      float spread, bool round_up) {
  const json& described = golden().at(kind).at(name);
  const uint64_t index = described.at("index");
  const auto config = read_as(read, described.at("config"));
  const std::vector<int64_t> size = described.at("size");

  NetRun encoder;
  const Shape image = batch_of_two({config.in_channels, size[0], size[1]});
  encoder.run(
      encode(config, encoder.context(), encoder.input("image", image, formula(image, kInput + index, 2))),
      fill);
  EXPECT_LE(distance(encoder, kind + "." + name + "." + code), 1e-5);

  NetRun decoder;
  const auto latent = [&](int64_t pixels) {
    return (pixels + (round_up ? config.scale() - 1 : 0)) / config.scale();
  };
  const Shape latents = batch_of_two({config.latent_channels, latent(size[0]), latent(size[1])});
  decoder.run(decode(config, decoder.context(),
                     decoder.input("latents", latents, formula(latents, kInput + 100 + index, spread))),
              fill);
  EXPECT_LE(distance(decoder, kind + "." + name + ".image"), 1e-5);
}

using AutoencoderGolden = Golden;
TEST_P(AutoencoderGolden, BothWays) {
  expect_both_ways(read_autoencoder_config, "vae", GetParam(), "moments", 4, false);
}
using TinyAutoencoderGolden = Golden;
TEST_P(TinyAutoencoderGolden, BothWays) {
  expect_both_ways(read_autoencoder_tiny_config, "tiny_vae", GetParam(), "latents", 8, true);
}

// Every tensor of models in use: names and shapes, their number and that of their elements.
void expect_tensors(const ParameterTable& table, const json& expected) {
  std::vector<std::string> lines;
  int64_t elements = 0;
  for (const FlatEntry& e : table.parameters) {
    std::string shape;
    for (int i = 0; i < e.shape.rank(); ++i) shape += (i ? ", " : "") + std::to_string(e.shape[i]);
    lines.push_back(e.name + " [" + shape + "]\n");
    elements += e.shape.elements();
  }
  std::sort(lines.begin(), lines.end());
  std::string text;
  for (const auto& line : lines) text += line;
  EXPECT_EQ(lines.size(), expected.at("tensors"));
  EXPECT_EQ(elements, expected.at("parameters"));
  EXPECT_EQ(sha256_hex(std::as_bytes(std::span(text))),
            expected.at("names_and_shapes_sha256").get<std::string>())
      << text;
}

struct Build {
  Graph graph;
  GraphBuilder builder{graph};
  ModelContext context{builder, false};
  ValueId input(const Shape& shape, DType dtype = DType::f32) {
    return builder.input("x", {dtype, shape, Layout::plain}, true);
  }
  ParameterTable table() const { return make_parameter_table(graph); }
};

TEST(TextToImageTensors, TextEncodersInUse) {
  for (const auto& [name, expected] : golden().at("in_use").at("text_encoder").items()) {
    SCOPED_TRACE(name);
    Build b;
    clip_text(read_as(read_clip_text_config, expected.at("config")), b.context, b.input({1, 77}, DType::i32));
    expect_tensors(b.table(), expected);
  }
}

TEST(TextToImageTensors, UNetsInUse) {
  for (const auto& [name, expected] : golden().at("in_use").at("unet").items()) {
    SCOPED_TRACE(name);
    const auto config = read_as(read_unet_condition_config, expected.at("config"));
    Build b;
    DenoiserInputs in;
    const int64_t size = config.sample_size[0];
    in.sample = b.input({1, config.in_channels, size, size});
    in.timesteps = b.input({1});
    in.text = b.input({1, 77, config.cross_attention_dim});
    const ValueId y = make_unet2d_condition(config)(b.context, in);
    EXPECT_EQ(b.builder.spec(y).shape, (Shape{1, config.out_channels, size, size}));
    expect_tensors(b.table(), expected);
  }
}

TEST(TextToImageTensors, AutoencodersInUse) {
  for (const auto& [name, expected] : golden().at("in_use").at("vae").items()) {
    SCOPED_TRACE(name);
    const auto config = read_as(read_autoencoder_config, expected.at("config"));
    Build b;
    const int64_t size = config.sample_size[0], latent = size / config.scale();
    const ValueId moments = encode(config, b.context, b.input({1, 3, size, size}));
    EXPECT_EQ(b.builder.spec(moments).shape, (Shape{1, 8, latent, latent}));
    const ValueId image = decode(config, b.context, b.input({1, 4, latent, latent}));
    EXPECT_EQ(b.builder.spec(image).shape, (Shape{1, 3, size, size}));
    expect_tensors(b.table(), expected);
  }
}

TEST(TextToImageTensors, TinyAutoencodersInUse) {
  for (const auto& [name, expected] : golden().at("in_use").at("tiny_vae").items()) {
    SCOPED_TRACE(name);
    const auto config = read_as(read_autoencoder_tiny_config, expected.at("config"));
    Build b;
    const ValueId latents = encode(config, b.context, b.input({1, 3, 512, 512}));
    EXPECT_EQ(b.builder.spec(latents).shape, (Shape{1, 4, 64, 64}));
    const ValueId image = decode(config, b.context, b.input({1, 4, 64, 64}));
    EXPECT_EQ(b.builder.spec(image).shape, (Shape{1, 3, 512, 512}));
    expect_tensors(b.table(), expected);
  }
}

// CLIPPreTrainedModel._init_weights of transformers: normals of these deviations, norms 1 and 0, biases 0.
TEST(ClipText, InitialDistributionsAreTransformers) {
  ClipTextConfig config;
  config.hidden_size = 64, config.intermediate_size = 96, config.num_hidden_layers = 3;
  config.vocab_size = 500, config.initializer_factor = 2;
  Build b;
  clip_text(config, b.context, b.input({1, 77}, DType::i32));
  ModelState state(b.table(), {.gradients = false}, *make_self_communicator());
  state.initialise(3);
  const double width = std::sqrt(64.0), depth = std::sqrt(6.0);
  const auto deviation = [&](const std::string& name) {
    if (name.find("embedding") != std::string::npos) return 0.02;
    if (name.ends_with("out_proj.weight")) return 1 / width;
    if (name.ends_with("fc1.weight")) return 1 / (std::sqrt(2.0) * width);
    return 1 / (width * depth);  // q_proj, k_proj, v_proj, fc2
  };
  for (const FlatEntry& e : state.table.parameters) {
    const auto values = state.parameter(e.name);
    if (e.shape.rank() == 1) {
      const float expected = e.name.find("norm") != std::string::npos && e.name.ends_with("weight") ? 1 : 0;
      EXPECT_TRUE(std::ranges::all_of(values, [&](float v) { return v == expected; })) << e.name;
      continue;
    }
    const auto n = static_cast<double>(values.size());
    double mean = 0, square = 0, fourth = 0;
    for (float v : values) mean += v / n, square += double{v} * v / n, fourth += double{v} * v * v * v / n;
    const double variance = std::pow(2 * deviation(e.name), 2);
    // Five standard errors of a normal's mean, variance and kurtosis.
    EXPECT_NEAR(mean, 0, 5 * std::sqrt(variance / n)) << e.name;
    EXPECT_NEAR(square / variance, 1, 5 * std::sqrt(2 / n)) << e.name;
    EXPECT_NEAR(fourth / (square * square), 3, 5 * std::sqrt(24 / n)) << e.name;
  }
}

std::string shape_error(const std::function<void()>& build) {
  try {
    build();
  } catch (const Error& e) {
    EXPECT_EQ(e.id(), "E_SHAPE") << e.what();
    return e.message();
  }
  return "";
}

TEST(TextToImage, ShapesThatDoNotFit) {
  Build b;
  ClipTextConfig clip;
  clip.max_position_embeddings = 8;
  EXPECT_NE(shape_error([&] {
              clip_text(clip, b.context, b.input({1, 9}, DType::i32));
            }).find("max_position_embeddings"),
            std::string::npos);
  const AutoencoderKlConfig vae;
  EXPECT_NE(shape_error([&] {
              encode(vae, b.context, b.input({1, 4, 8, 8}));
            }).find("in_channels"),
            std::string::npos);
  EXPECT_NE(shape_error([&] {
              decode(vae, b.context, b.input({1, 3, 8, 8}));
            }).find("latent_channels"),
            std::string::npos);
  UNet2DConditionConfig unet;
  const auto predict = [&](int64_t channels, int64_t width) {
    const DenoiserInputs in{
        .sample = b.input({1, channels, 8, 8}), .timesteps = b.input({1}), .text = b.input({1, 77, width})};
    make_unet2d_condition(unet)(b.context, in);
  };
  EXPECT_NE(shape_error([&] { predict(3, 1280); }).find("in_channels"), std::string::npos);
  EXPECT_NE(shape_error([&] { predict(4, 768); }).find("cross_attention_dim"), std::string::npos);
}

// diffusers' transformers have no dropout.
TEST(TextToImage, DropoutActsInTheResnetsWhileTraining) {
  UNet2DConditionConfig config;
  config.block_out_channels = {8, 8, 8, 8}, config.norm_num_groups = 4, config.attention_head_dim = {2};
  config.cross_attention_dim = 8, config.dropout = 0.5;
  const auto dropouts = [&](bool training) {
    Build b;
    b.context.training = training;
    b.context.step_state =
        b.builder.input(kStepState, {DType::u8, {sizeof(StepState)}, Layout::plain}, false);
    const DenoiserInputs in{
        .sample = b.input({1, 4, 8, 8}), .timesteps = b.input({1}), .text = b.input({1, 5, 8})};
    make_unet2d_condition(config)(b.context, in);
    return std::ranges::count_if(b.graph.nodes(), [](const Node& n) { return n.op == "dropout"; });
  };
  EXPECT_EQ(dropouts(true), 4 * 2 + 2 + 4 * 3);
  EXPECT_EQ(dropouts(false), 0);
}

const auto by_name = [](const auto& test) { return test.param; };
INSTANTIATE_TEST_SUITE_P(Nets, TextEncoderGolden, ::testing::ValuesIn(cases("text_encoder")), by_name);
INSTANTIATE_TEST_SUITE_P(Nets, ConditionUNetGolden, ::testing::ValuesIn(cases("unet")), by_name);
INSTANTIATE_TEST_SUITE_P(Nets, AutoencoderGolden, ::testing::ValuesIn(cases("vae")), by_name);
INSTANTIATE_TEST_SUITE_P(Nets, TinyAutoencoderGolden, ::testing::ValuesIn(cases("tiny_vae")), by_name);

}  // namespace
}  // namespace lockstep::testing::text_to_image_test
