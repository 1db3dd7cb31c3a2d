// SPDX-License-Identifier: Apache-2.0
// The autoencoder against diffusers:
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

namespace lockstep::testing {
namespace {

using nlohmann::json;

constexpr uint64_t kInput = 1000;

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

// float32 on both sides, sums in other orders: what is allowed is about ten times what is seen.
using AutoencoderGolden = Golden;
TEST_P(AutoencoderGolden, BothWays) {
  const json& described = golden().at("vae").at(GetParam());
  const uint64_t index = described.at("index");
  const auto config = read_as(read_autoencoder_config, described.at("config"));
  const std::vector<int64_t> size = described.at("size");

  NetRun encoder;
  const Shape image = batch_of_two({config.in_channels, size[0], size[1]});
  encoder.run(
      encode(config, encoder.context(), encoder.input("image", image, formula(image, kInput + index, 2))),
      fill);
  EXPECT_LE(distance(encoder, "vae." + GetParam() + ".moments"), 1e-4);

  NetRun decoder;
  const Shape latents =
      batch_of_two({config.latent_channels, size[0] / config.scale(), size[1] / config.scale()});
  decoder.run(decode(config, decoder.context(),
                     decoder.input("latents", latents, formula(latents, kInput + 100 + index, 4))),
              fill);
  EXPECT_LE(distance(decoder, "vae." + GetParam() + ".image"), 1e-4);
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
  EXPECT_EQ(sha256_hex(std::as_bytes(std::span(text))), expected.at("names_and_shapes_sha256")) << text;
}

struct Build {
  Graph graph;
  GraphBuilder builder{graph};
  ModelContext context{builder, false};
  ValueId input(const Shape& shape) { return builder.input("x", {DType::f32, shape, Layout::plain}, true); }
  ParameterTable table() const { return make_parameter_table(graph); }
};

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

const auto by_name = [](const auto& test) { return test.param; };
INSTANTIATE_TEST_SUITE_P(Nets, AutoencoderGolden, ::testing::ValuesIn(cases("vae")), by_name);

}  // namespace
}  // namespace lockstep::testing
