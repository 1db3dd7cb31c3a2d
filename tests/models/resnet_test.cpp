// SPDX-License-Identifier: Apache-2.0
// ResNets against torchvision: tests/golden/make_resnet.py. On one rank, and under mpirun on two, which halve
// the batch and must still find what one process finds with the whole of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/model.h"
#include "runtime/comm/agree.h"
#include "runtime/data/hash.h"
#include "runtime/data/sample_order.h"
#include "runtime/graph/autodiff.h"
#include "runtime/graph/executor.h"
#include "runtime/graph/passes.h"
#include "runtime/training/state_io.h"
#include "tests/runtime/comm/world.h"
#include "tests/support/files.h"
#include "tests/support/process.h"

namespace lockstep::testing::resnet_test {
namespace {

using nlohmann::json;

constexpr int64_t kClasses = 10;
constexpr uint32_t kLogits = 1000, kProjection = 2000,
                   kImages = 3000;  // numbers of draws, as the maker has them

const json& golden() {
  static const json file = json::parse(read_file(LOCKSTEP_SOURCE_DIR "/tests/golden/resnet.json"));
  return file;
}

// The maker's draw(): uniform in [-1, 1).
double draw(uint32_t number, int64_t index) {
  uint32_t x = static_cast<uint32_t>(index) * 2654435761u + number * 40503u + 1;
  x ^= x >> 15, x *= 2246822519u, x ^= x >> 13, x *= 3266489917u, x ^= x >> 16;
  return static_cast<double>(x >> 8) / (1 << 23) - 1;
}

// The maker's values_of().
float value_of(uint32_t number, const FlatEntry& e, int64_t index) {
  const double u = draw(number, index);
  const auto is = [&](const char* end) { return e.name.ends_with(end); };
  if (e.shape.rank() > 1)
    return static_cast<float>(u * std::sqrt(6 / static_cast<double>(e.shape.elements_from(1))));
  if (is("running_var")) return static_cast<float>(1 + 0.3 * u);
  if (is("running_mean") || e.name.starts_with("fc")) return static_cast<float>(0.2 * u);
  if (is("weight")) return static_cast<float>(0.2 + 0.06 * u);
  return static_cast<float>(0.4 * u + std::copysign(0.6, u));
}

ModelSpec model_of(const std::string& case_name) {  // "resnet18-cifar"
  const size_t dash = case_name.find('-');
  ModelSpec spec;
  spec.name = case_name.substr(0, dash), spec.stem = case_name.substr(dash + 1);
  return spec;
}

// A training step's forward and backward on this rank's part of the case's images; outputs "logits" and
// "grad.<tensor>".
class Step {
 public:
  Step(const std::string& case_name, const json& expected) : comm_(world()) {
    Shape images;
    for (int64_t d : expected.at("images")) images.push_back(d);
    mine_ = slice_of(images[0], comm_.size(), comm_.rank());
    images.set(0, mine_.size());

    Graph g;
    GraphBuilder b(g);
    // The images and the logits' gradient are handed over as parameters are.
    const auto given = [&](const char* name, Shape shape) {
      const ValueId v = b.parameter(name, shape, {});
      g.value(v).batch = true;
      return v;
    };
    ValueId x = given("x", images), dy = given("dy", {mine_.size(), kClasses});
    ModelContext context{b};
    context.ranks = comm_.size();
    ValueId y = make_classifier(model_of(case_name), kClasses)(context, x);
    g = assign_layouts(g, {&x, &dy, &y});
    std::vector<ValueId> wanted = g.values_in(Storage::parameter);
    std::erase_if(wanted, [&](ValueId v) { return v == x || v == dy; });
    const auto gradients = append_gradients(b, {{y, b.reorder(dy, b.spec(y).layout)}}, wanted);
    y = b.reorder(y, Layout::plain);
    g.value(y).storage = Storage::output, g.value(y).name = "logits";
    for (auto [parameter, d] : gradients)
      g.value(d).storage = Storage::output, g.value(d).name = "grad." + g.value(parameter).name;

    model_ = std::make_unique<ModelState>(make_parameter_table(g), ModelArrays{.gradients = false},
                                          *make_self_communicator());
    uint32_t number = 0;
    for (const auto& name : model_->table.order) {
      const FlatEntry& e = *model_->table.find(name);
      const bool buffer = e.name.find("running_") != std::string::npos;
      const auto values = buffer ? model_->buffer(name) : model_->parameter(name);
      const bool image = name == "x", gradient = name == "dy";
      const int64_t first = mine_.begin * e.shape.elements_from(1);
      for (size_t i = 0; i < values.size(); ++i) {
        const auto at = static_cast<int64_t>(i);
        if (image)
          values[i] = static_cast<float>(draw(kImages + expected.at("seed").get<uint32_t>(), first + at));
        else if (gradient)
          values[i] = static_cast<float>(draw(kLogits, first + at));
        else
          values[i] = value_of(number, e, at);
      }
      if (!image && !gradient) numbers_[name] = number++;
    }

    const KernelChoice how{Device::cpu, 1, "test", ""};
    KernelTable table;
    const auto plan = std::make_shared<Plan>(compile(
        g, table, how, [&](KernelTable& t, const Graph& graph) { choose_first_kernels(t, graph, how); }));
    statistics_ = comm_.duplicate("statistics");
    device_ = make_host_runtime(Device::cpu);
    executor_ = std::make_unique<Executor>(*model_, comm_, *statistics_, how, *device_);
    bound_ = &executor_->bind(plan);
    executor_->run(*bound_, {});
  }

  const View& logits() const { return executor_->output(*bound_, "logits"); }
  int64_t first_image() const { return mine_.begin; }
  uint32_t number(const std::string& tensor) const { return numbers_.at(tensor); }
  // A gradient, summed over the ranks, or a running statistic.
  std::vector<float> result(const std::string& name) {
    std::vector<float> values;
    if (name.starts_with("grad.")) {
      const View& v = executor_->output(*bound_, name);
      values.assign(v.as<float>(), v.as<float>() + v.spec.shape.elements());
      comm_.allreduce(std::span<float>(values), Reduce::sum);
    } else {
      const auto buffer = model_->buffer(name);
      values.assign(buffer.begin(), buffer.end());
    }
    return values;
  }
  Communicator& comm() { return comm_; }

 private:
  Communicator& comm_;
  Slice mine_;
  std::unique_ptr<ModelState> model_;
  std::map<std::string, uint32_t> numbers_;
  std::unique_ptr<Communicator> statistics_;
  std::unique_ptr<DeviceRuntime> device_;
  std::unique_ptr<Executor> executor_;
  Executor::Bound* bound_ = nullptr;
};

class ResNetGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(ResNetGolden, LogitsGradientsAndRunningStatistics) {
  const json& expected = golden().at("cases").at(GetParam());
  // Five times what PyTorch's float32 is from its float64: other orders of summing.
  const auto allowed = [&](const char* what) { return 5 * expected.at("float32").at(what).get<double>(); };
  ASSERT_LT(allowed("logits"), 5e-6);
  ASSERT_LT(allowed("statistics"), 5e-6);
  ASSERT_LT(allowed("gradients"), 1e-3);
  Step step(GetParam(), expected);

  const auto logits = expected.at("logits").get<std::vector<std::vector<double>>>();
  double largest = 0;
  for (const auto& row : logits)
    for (double l : row) largest = std::max(largest, std::abs(l));
  for (int64_t n = 0; n < step.logits().dim(0); ++n)
    for (int64_t c = 0; c < kClasses; ++c)
      ASSERT_NEAR(step.logits().as<float>()[n * kClasses + c],
                  logits[static_cast<size_t>(step.first_image() + n)][static_cast<size_t>(c)],
                  allowed("logits") * largest)
          << "image " << step.first_image() + n << ", class " << c;

  const json& results = expected.at("results");
  std::string statistics;  // the bits, which are the same on all ranks
  for (const auto& [name, e] : results.items()) {
    const bool gradient = name.starts_with("grad.");
    const auto values = step.result(name);
    double squares = 0, product = 0;
    const uint32_t vector = kProjection + step.number(gradient ? name.substr(5) : name);
    for (size_t i = 0; i < values.size(); ++i) {
      squares += double{values[i]} * values[i];
      product += values[i] * draw(vector, static_cast<int64_t>(i));
    }
    // A bias that a 1x1 convolution and batch norm follow has a gradient of all but 0, rounded as its
    // weight's is.
    double length = e.at("length");
    if (name.ends_with(".bias"))
      length =
          std::max(length, results.at(name.substr(0, name.size() - 4) + "weight").at("length").get<double>());
    const double tolerance = allowed(gradient ? "gradients" : "statistics") * length;
    EXPECT_NEAR(std::sqrt(squares), e.at("length").get<double>(), tolerance) << name;
    EXPECT_NEAR(product, e.at("product").get<double>(), tolerance) << name;
    const std::vector<double> numbers = e.at("numbers");
    EXPECT_NEAR(values.front(), numbers[0], tolerance) << name;
    EXPECT_NEAR(values[values.size() / 2], numbers[1], tolerance) << name;
    EXPECT_NEAR(values.back(), numbers[2], tolerance) << name;
    if (!gradient) statistics += sha256_hex(std::as_bytes(std::span(values)));
  }
  EXPECT_NO_THROW(require_agreement(step.comm(), {{"running statistics", statistics}}));
}
INSTANTIATE_TEST_SUITE_P(Cases, ResNetGolden, ::testing::Values("resnet18-cifar", "resnet50-imagenet"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(ResNetOnRanks, TwoWithHalfTheBatchEach) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe");
  const auto r = run(mpirun(2, {self, "--gtest_color=no", "--gtest_filter=World.*:*ResNetGolden.*"}));
  EXPECT_EQ(r.code, 0) << r.output;
  EXPECT_EQ(r.output.find("FAILED"), std::string::npos) << r.output;
  EXPECT_NE(r.output.find("World.HasTheSizeThatTheLauncherSays"), std::string::npos) << r.output;
}

ParameterTable table_of(const std::string& model, const std::string& stem, int64_t classes) {
  ModelSpec spec;
  spec.name = model, spec.stem = stem;
  const auto objective = make_objective(spec, {3, 32, 32, classes, {0, 0, 0}, {1, 1, 1}}, {});
  return make_parameter_table(build_forward(forward_of(*objective), {}, true).graph);
}

// Names, shapes and order of torchvision's state_dict().
TEST(ResNet, TensorsAreTorchvisions) {
  for (const char* model : {"resnet18", "resnet34", "resnet50"}) {
    const ModelState state(table_of(model, "imagenet", 10), {.gradients = false}, *make_self_communicator());
    json tensors;
    for (const StoredTensor& t : model_tensors(state)) tensors.push_back({t.name, t.shape});
    EXPECT_EQ(tensors, golden().at("shapes").at(model)) << model;
  }
}

// Of the CIFAR stem only conv1 differs, and fc goes with the data.
TEST(ResNet, StemAndClasses) {
  const auto imagenet = table_of("resnet34", "imagenet", 10), cifar = table_of("resnet34", "cifar", 100);
  EXPECT_EQ(imagenet.order, cifar.order);
  for (const FlatEntry& e : cifar.parameters) {
    if (e.name == "conv1.weight")
      EXPECT_EQ(e.shape, (Shape{64, 3, 3, 3}));
    else if (e.name == "fc.weight")
      EXPECT_EQ(e.shape, (Shape{100, 512}));
    else if (e.name == "fc.bias")
      EXPECT_EQ(e.shape, (Shape{100}));
    else
      EXPECT_EQ(e.shape, imagenet.parameter(e.name).shape) << e.name;
  }
}

// Convolutions: normal of variance 2 / (output channels x window); fc uniform; batch norm 1 and 0.
TEST(ResNet, InitialDistributionsAreTorchvisions) {
  ModelState state(table_of("resnet18", "cifar", 10), {.gradients = false}, *make_self_communicator());
  state.initialise(7);
  for (const FlatEntry& e : state.table.parameters) {
    const auto values = state.parameter(e.name);
    const auto n = static_cast<double>(values.size());
    double mean = 0, square = 0, fourth = 0;
    for (float v : values) mean += v / n, square += double{v} * v / n, fourth += double{v} * v * v * v / n;
    if (e.shape.rank() == 4) {
      const double variance = 2.0 / static_cast<double>(e.shape[0] * e.shape.elements_from(2));
      // Five standard errors of a normal's mean, variance and kurtosis.
      EXPECT_NEAR(mean, 0, 5 * std::sqrt(variance / n)) << e.name;
      EXPECT_NEAR(square / variance, 1, 5 * std::sqrt(2 / n)) << e.name;
      EXPECT_NEAR(fourth / (square * square), 3, 5 * std::sqrt(24 / n)) << e.name;
    } else if (e.name == "fc.weight") {
      EXPECT_NEAR(square * 3 * 512, 1, 0.1);  // uniform within 1/sqrt(512)
    } else if (e.name != "fc.bias") {
      const float expected = e.name.ends_with("weight") ? 1 : 0;
      EXPECT_TRUE(std::ranges::all_of(values, [&](float v) { return v == expected; })) << e.name;
    }
  }
}

}  // namespace
}  // namespace lockstep::testing::resnet_test
