// Optimizers and learning-rate schedules alone against PyTorch's: tests/golden/make_optimizer.py.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "kernels/core/step_state.h"
#include "kernels/optimizer/optimizer.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/training/config.h"
#include "tests/support/files.h"
#include "tests/support/kernel_cases.h"

namespace lockstep::testing {
namespace {

using nlohmann::json;

std::string golden(const std::string& name) {
  return std::string(LOCKSTEP_SOURCE_DIR "/tests/golden/") + name;
}

std::vector<float> floats(const SafetensorsFile& file, const std::string& name) {
  const StoredTensor* t = file.find(name);
  EXPECT_TRUE(t && t->dtype == "F32") << name;
  std::vector<float> values(t ? t->bytes.size() / sizeof(float) : 0);
  if (t) std::memcpy(values.data(), t->bytes.data(), t->bytes.size());
  return values;
}

// Settings as in a job file; param_groups as [begin, end, settings].
OptimizerParams optimizer_params(const json& c, int64_t length) {
  OptimizerParams p;
  const std::string name = c.at("name");
  p.kind = name == "sgd"    ? OptimizerParams::Kind::sgd
           : name == "adam" ? OptimizerParams::Kind::adam
                            : OptimizerParams::Kind::adamw;
  p.momentum = c.value("momentum", 0.0), p.dampening = c.value("dampening", 0.0);
  p.nesterov = c.value("nesterov", false);
  if (c.contains("betas")) p.beta1 = c["betas"][0], p.beta2 = c["betas"][1];
  p.eps = c.value("eps", 1e-8);
  p.clip_norm = c.value("clip_grad_norm", 0.0);
  const double decay = c.value("weight_decay", 0.0);
  int64_t end = 0;
  for (const json& g : c.value("param_groups", json::array())) {
    OptimizerSegment s;
    s.begin = g[0], s.end = end = g[1];
    s.lr_scale = g[2].value("lr_scale", 1.0);
    s.weight_decay = g[2].value("weight_decay", decay);
    s.frozen = g[2].value("frozen", false);
    p.segments.push_back(s);
  }
  OptimizerSegment rest;
  rest.begin = end, rest.end = length, rest.weight_decay = decay;
  p.segments.push_back(rest);
  return p;
}

double relative_l2(const float* got, const float* expected, int64_t n) {
  double difference = 0, size = 0;
  for (int64_t i = 0; i < n; ++i) {
    difference += (double{got[i]} - expected[i]) * (double{got[i]} - expected[i]);
    size += double{expected[i]} * expected[i];
  }
  return std::sqrt(difference / size);
}

std::vector<std::string> cpu_kernels(const std::string& op) {
  std::vector<std::string> names;
  for (const KernelInfo& k : Registry::builtin().all())
    if (k.op == op && k.device == Device::cpu) names.push_back(k.name);
  return names;
}

TEST(OptimizerGolden, EveryKernelFollowsPyTorchFor30Steps) {
  const auto file = SafetensorsFile::open(golden("optimizer.safetensors"));
  const auto start = floats(*file, "params"), grads = floats(*file, "grads");
  const auto n = static_cast<int64_t>(start.size());
  const auto steps = static_cast<int64_t>(grads.size()) / n;
  ASSERT_EQ(n * steps, 200 * 30);
  const json cases = json::parse(read_file(golden("optimizer.json")));
  ASSERT_GE(cases.size(), 12u);
  const auto kernels = cpu_kernels("optimizer_step");
  ASSERT_GE(kernels.size(), 2u);

  for (const auto& [label, settings] : cases.items())
    for (const std::string& kernel : kernels) {
      SCOPED_TRACE(label + " by " + kernel);
      const auto expected = floats(*file, label);
      ASSERT_EQ(expected.size(), grads.size());
      const OptimizerParams p = optimizer_params(settings, n);

      Buffer params(f32({n})), step_state({DType::u8, {sizeof(StepState)}, Layout::plain}), metrics(f32({1})),
          norm(f32({1}));
      std::memcpy(params.data(), start.data(), start.size() * sizeof(float));
      *metrics.as() = 1;
      *norm.as() = 0;
      std::vector<Buffer> state;
      for (int i = 0; i < p.state_count(); ++i) {
        state.emplace_back(f32({n}));
        std::memset(state.back().data(), 0, static_cast<size_t>(n) * sizeof(float));
      }
      double worst = 0;
      for (int64_t t = 0; t < steps; ++t) {
        Buffer g(f32({n}));
        std::memcpy(g.data(), grads.data() + t * n, static_cast<size_t>(n) * sizeof(float));
        if (p.clip_norm > 0) norm = run_kernel("grad_norm", "reference", p, {g}, {f32({1})})[0];
        *step_state.as<StepState>() = StepState{.step = t, .lr = settings.at("lr").get<float>()};
        std::vector<Buffer> in{params, g, step_state, metrics, norm};
        in.insert(in.end(), state.begin(), state.end());
        auto out = run_kernel("optimizer_step", kernel, p, in,
                              std::vector<TensorSpec>(static_cast<size_t>(1 + p.state_count()), f32({n})));
        params = out[0];
        std::copy(out.begin() + 1, out.end(), state.begin());
        worst = std::max(worst, relative_l2(params.as(), expected.data() + t * n, n));
      }
      // float32 rounds each parameter once a step, 6e-8 of it at most: 30 random steps give 3e-7.
      EXPECT_LT(worst, 1e-6);
    }
}

TEST(LrScheduleGolden, EqualsPyTorchsSchedulers) {
  const json cases = json::parse(read_file(golden("lr_schedule.json")));
  ASSERT_GE(cases.size(), 8u);
  for (const json& c : cases) {
    LrScheduleConfig s;
    s.name = c.at("name");
    s.warmup_steps = c.value("warmup", 0);
    s.step_size = c.value("step_size", 0);
    s.gamma = c.value("gamma", 0.1);
    s.final_lr_scale = c.value("final_lr_scale", 0.0);
    const int64_t total = c.at("total");
    const std::vector<double> rates = c.at("rates");
    ASSERT_EQ(static_cast<int64_t>(rates.size()), total);
    for (int64_t step = 0; step < total; ++step)
      // PyTorch multiplies its way from step to step; rounding in double.
      EXPECT_NEAR(lr_at(s, c.at("lr"), step, total), rates[static_cast<size_t>(step)], 1e-12)
          << s.name << " with " << s.warmup_steps << " warm-up steps, step " << step;
  }
}

}  // namespace
}  // namespace lockstep::testing
