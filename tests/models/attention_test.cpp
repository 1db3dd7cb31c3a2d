// SPDX-License-Identifier: Apache-2.0
// self_attention2d against PyTorch: tests/golden/make_attention.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "models/model.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/graph/autodiff.h"
#include "runtime/graph/executor.h"
#include "runtime/graph/passes.h"

namespace lockstep::testing::attention_test {
namespace {

struct Case {
  std::string name;
  layer::SelfAttention2d layer;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class SelfAttention2dGolden : public ::testing::TestWithParam<Case> {
 protected:
  std::vector<float> golden(const std::string& name) const {
    const StoredTensor* t = file_->find(GetParam().name + "." + name);
    if (!t || t->dtype != "F32") throw std::runtime_error("no tensor " + name);
    std::vector<float> values(t->bytes.size() / sizeof(float));
    std::memcpy(values.data(), t->bytes.data(), t->bytes.size());
    return values;
  }
  Shape shape(const std::string& name) const {
    Shape s;
    for (int64_t d : file_->find(GetParam().name + "." + name)->shape) s.push_back(d);
    return s;
  }

 private:
  std::shared_ptr<const SafetensorsFile> file_ =
      SafetensorsFile::open(LOCKSTEP_SOURCE_DIR "/tests/golden/attention.safetensors");
};

TEST_P(SelfAttention2dGolden, ForwardAndAllGradients) {
  Graph g;
  GraphBuilder b(g);
  // The image and the gradient of the output are handed over as parameters are.
  const auto image = [&](const std::string& name) {
    const ValueId v = b.parameter(name, shape("x"), {});
    g.value(v).batch = true;
    return v;
  };
  ValueId x = image("x"), dy = image("dy");
  ModelSpec spec;
  spec.layers.push_back({.kind = GetParam().layer, .type = "self_attention2d", .name = "net"});
  ModelContext context{b};
  ValueId y = make_classifier(spec, 0)(context, x);
  g = assign_layouts(g, {&x, &dy, &y});

  std::vector<ValueId> wanted = g.values_in(Storage::parameter);
  std::erase(wanted, dy);
  std::vector<std::pair<ValueId, std::string>> outputs = {{y, "y"}};
  for (auto [p, d] : append_gradients(b, {{y, b.reorder(dy, b.spec(y).layout)}}, wanted)) {
    ASSERT_NE(d, kNoValue) << g.value(p).name;
    outputs.emplace_back(d, "grad." + g.value(p).name);
  }
  for (const auto& [value, name] : outputs)
    g.value(value).storage = Storage::output, g.value(value).name = name;
  EXPECT_EQ(outputs.size(), 1u + 1 + 10);

  ModelState model(make_parameter_table(g), {.gradients = false}, *make_self_communicator());
  const auto golden_name = [](const std::string& name) {
    return name.starts_with("net.") ? name.substr(4) : name;
  };
  for (const FlatEntry& e : model.table.parameters) {
    EXPECT_EQ(e.shape, shape(golden_name(e.name))) << e.name;
    const auto values = golden(golden_name(e.name));
    ASSERT_EQ(static_cast<int64_t>(values.size()), e.shape.elements()) << e.name;
    std::copy(values.begin(), values.end(), model.parameter(e.name).begin());
  }
  const KernelChoice how{Device::cpu, 2, "test", ""};
  KernelTable table;
  const auto plan = std::make_shared<Plan>(compile(
      g, table, how, [&](KernelTable& t, const Graph& graph) { choose_first_kernels(t, graph, how); }));
  for (const Node& n : plan->graph.nodes())
    if (n.op.starts_with("attention")) {
      EXPECT_EQ(n.kernel, "tiled_nhwc");
    }
  const auto comm = make_self_communicator();
  const auto device = make_host_runtime(Device::cpu);
  Executor executor(model, *comm, *comm, how, *device);
  Executor::Bound& bound = executor.bind(plan);
  executor.run(bound, {});

  double largest_weight_gradient = 0;
  for (float v : golden("grad.to_v.weight"))
    largest_weight_gradient = std::max(largest_weight_gradient, std::abs(double{v}));
  for (const auto& output : outputs) {
    const std::string& name = output.second;
    const std::string theirs = name.starts_with("grad.") ? "grad." + golden_name(name.substr(5)) : name;
    const auto expected = golden(theirs);
    const View& got = executor.output(bound, name);
    ASSERT_EQ(got.spec.shape.elements(), static_cast<int64_t>(expected.size())) << name;
    double largest = 0;
    for (float v : expected) largest = std::max(largest, std::abs(double{v}));
    // float32 sums of up to 80 products, four of them after another; the true gradient of to_k.bias is 0, and
    // what is left of it is rounding of terms like the weights' gradients.
    const double allowed = 5e-6 * (theirs == "grad.to_k.bias" ? largest_weight_gradient : largest);
    const int64_t per = got.spec.shape.elements_from(1);
    for (size_t i = 0; i < expected.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      ASSERT_NEAR(got.as<float>()[got.spec.offset(at / per, at % per)], expected[i], allowed)
          << name << "[" << i << "]";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, SelfAttention2dGolden,
                         ::testing::Values(Case{"few", {.heads = 4, .groups = 4}},
                                           Case{"many", {.heads = 1, .groups = 8, .eps = 1e-6}}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace lockstep::testing::attention_test
