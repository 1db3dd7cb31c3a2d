// SPDX-License-Identifier: Apache-2.0
// The UNet against diffusers' UNet2DModel: tests/golden/make_unet.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "launch/job/net_config.h"
#include "models/unet2d.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/graph/autodiff.h"
#include "runtime/graph/executor.h"
#include "runtime/graph/passes.h"
#include "tests/models/unet_formula.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::unet_test {
namespace {

using nlohmann::json;

struct Case {
  size_t index = 0;
  json described;
  std::string name() const { return described.at("name"); }
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name(); }

std::vector<Case> cases() {
  std::ifstream file(LOCKSTEP_SOURCE_DIR "/tests/golden/unet.json");
  std::vector<Case> all;
  for (auto& described : json::parse(file)) all.push_back({all.size(), described});
  return all;
}

UNet2DConfig config_of(const Case& c) {
  TestFolder folder;
  const std::string path = folder.path() + "/config.json";
  std::ofstream(path) << c.described.at("config").dump();
  return read_unet_config(path);
}

double norm(std::span<const float> x) {
  double sum = 0;
  for (float v : x) sum += double{v} * double{v};
  return std::sqrt(sum);
}

class UNetGolden : public ::testing::TestWithParam<Case> {
 protected:
  std::span<const float> golden(const std::string& name) const {
    const StoredTensor* t = file_->find(GetParam().name() + "." + name);
    if (!t) throw std::runtime_error("no tensor " + name);
    return {reinterpret_cast<const float*>(t->bytes.data()), t->bytes.size() / sizeof(float)};
  }

 private:
  std::shared_ptr<const SafetensorsFile> file_ =
      SafetensorsFile::open(LOCKSTEP_SOURCE_DIR "/tests/golden/unet.safetensors");
};

TEST_P(UNetGolden, PredictionAndGradients) {
  const Case& c = GetParam();
  const UNet2DConfig config = config_of(c);
  const Shape image{2, config.in_channels, config.sample_size[0], config.sample_size[1]};

  Graph g;
  GraphBuilder b(g);
  // The image and the gradient of the prediction are handed over as parameters are.
  const auto batch = [&](const char* name) {
    const ValueId v = b.parameter(name, image, {});
    g.value(v).batch = true;
    return v;
  };
  ValueId x = batch("x"), dy = batch("dy");
  ModelContext context{b, false};
  DenoiserInputs in;
  in.sample = x;
  in.timesteps = b.input(kTimesteps, {DType::f32, {2}, Layout::plain}, true);
  in.labels = b.input(kLabels, {DType::i32, {2}, Layout::plain}, true);
  ValueId y = make_unet2d(config)(context, in);
  g = assign_layouts(g, {&x, &dy, &y});

  std::vector<std::pair<ValueId, std::string>> outputs;
  if (c.described.at("gradients")) {
    std::vector<ValueId> wanted = g.values_in(Storage::parameter);
    std::erase(wanted, dy), std::erase(wanted, x);
    for (auto [p, d] : append_gradients(b, {{y, b.reorder(dy, b.spec(y).layout)}}, wanted)) {
      ASSERT_NE(d, kNoValue) << g.value(p).name;
      outputs.emplace_back(d, "grad." + g.value(p).name);
    }
  }
  outputs.emplace_back(y, "prediction");
  for (const auto& [value, name] : outputs)
    g.value(value).storage = Storage::output, g.value(value).name = name;

  ModelState model(make_parameter_table(g), {.gradients = false}, *make_self_communicator());
  int64_t parameters = 0;
  size_t tensors = 0;
  for (const FlatEntry& e : model.table.parameters) {
    const auto values = model.parameter(e.name);
    if (e.name == "x" || e.name == "dy") {
      const uint64_t seed = (e.name == "x" ? 1000 : 2000) + c.index;
      const float scale = e.name == "x" ? 4.0f : 1.0f;
      for (size_t i = 0; i < values.size(); ++i) values[i] = scale * formula_uniform(i, seed);
      continue;
    }
    formula_weight(e.name, e.shape, values);
    parameters += e.shape.elements();
    ++tensors;
  }
  EXPECT_EQ(parameters, c.described.at("parameters"));
  EXPECT_EQ(tensors, c.described.at("tensors"));

  const KernelChoice how{Device::cpu, 2, "test", ""};
  KernelTable table;
  const auto plan = std::make_shared<Plan>(compile(
      g, table, how, [&](KernelTable& t, const Graph& graph) { choose_first_kernels(t, graph, how); }));
  const auto comm = make_self_communicator();
  const auto device = make_host_runtime(Device::cpu);
  Executor executor(model, *comm, *comm, how, *device);
  Executor::Bound& bound = executor.bind(plan);
  const std::vector<float> timesteps = c.described.at("timesteps");
  const std::vector<int32_t> labels = c.described.at("labels");
  StepInputs inputs;
  inputs.set(kTimesteps, timesteps), inputs.set(kLabels, labels);
  executor.run(bound, inputs);

  // Gradients that are zero in exact arithmetic: what adds the same to every key's score changes no softmax.
  double largest = 0;
  for (const auto& [value, name] : outputs) largest = std::max(largest, norm(golden(name)));
  for (const auto& [value, name] : outputs) {
    const auto expected = golden(name);
    const View& got = executor.output(bound, name);
    ASSERT_EQ(got.spec.shape.elements(), static_cast<int64_t>(expected.size())) << name;
    const int64_t per = got.spec.shape.elements_from(1);
    double square = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      const double d = double{got.as<float>()[got.spec.offset(at / per, at % per)]} - double{expected[i]};
      square += d * d;
    }
    // float32 on both sides, sums in other orders, some thirty layers deep: 1e-6 to 1e-5 is seen.
    const bool zero = name.ends_with("to_k.bias");
    const double allowed =
        name == "prediction" ? 1e-4 * norm(expected) : 1e-3 * (zero ? 1e-3 * largest : norm(expected));
    EXPECT_LE(std::sqrt(square), allowed) << name << " of norm " << norm(expected);
  }
}

INSTANTIATE_TEST_SUITE_P(Configurations, UNetGolden, ::testing::ValuesIn(cases()),
                         [](const auto& test) { return test.param.name(); });

TEST(UNet, ConfigurationsRoundTripThroughJson) {
  for (const Case& c : cases()) {
    const UNet2DConfig config = config_of(c);
    TestFolder folder;
    std::ofstream(folder.path() + "/config.json") << to_json(config).dump(2);
    const UNet2DConfig again = read_unet_config(folder.path() + "/config.json");
    EXPECT_EQ(to_json(again), to_json(config)) << c.name();
    for (const auto& [key, value] : c.described.at("config").items())
      if (key != "sample_size") {
        EXPECT_EQ(json(to_json(config)).at(key), value) << c.name() << " " << key;
      }
  }
}

}  // namespace
}  // namespace lockstep::testing::unet_test
