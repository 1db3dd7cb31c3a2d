// SPDX-License-Identifier: Apache-2.0
// Optimizers and learning-rate schedules alone against PyTorch's: tests/golden/make_optimizer.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "kernels/core/kernel.h"
#include "kernels/core/step_state.h"
#include "kernels/optimizer/optimizer.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/training/config.h"
#include "tests/support/files.h"

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
  p.ema = c.contains("ema");
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

EmaConfig ema_config(const json& c) {
  EmaConfig e;
  e.decay = c.at("decay");
  e.min_decay = c.value("min_decay", e.min_decay);
  e.update_after_step = c.value("update_after_step", e.update_after_step);
  e.warmup = c.value("warmup", e.warmup);
  e.power = c.value("power", e.power), e.inv_gamma = c.value("inv_gamma", e.inv_gamma);
  return e;
}

double relative_l2(const float* got, const float* expected, int64_t n) {
  double difference = 0, size = 0;
  for (int64_t i = 0; i < n; ++i) {
    difference += (double{got[i]} - expected[i]) * (double{got[i]} - expected[i]);
    size += double{expected[i]} * expected[i];
  }
  return std::sqrt(difference / size);
}

// Floats at an address that kernels take.
class Array {
 public:
  explicit Array(int64_t n, float value = 0) : blocks_(static_cast<size_t>((n + 15) / 16)) {
    std::fill_n(data(), n, value);
  }
  Array(const std::vector<float>& values) : Array(static_cast<int64_t>(values.size())) {
    std::copy(values.begin(), values.end(), data());
  }
  float* data() { return blocks_.front().floats; }

 private:
  struct alignas(64) Block {
    float floats[16];
  };
  std::vector<Block> blocks_;
};

TensorSpec f32(int64_t n) { return {DType::f32, {n}, Layout::plain}; }

std::vector<const KernelInfo*> cpu_kernels(const std::string& op) {
  std::vector<const KernelInfo*> found;
  for (const KernelInfo& k : Registry::builtin().all())
    if (k.op == op && k.device == Device::cpu && k.dtype == DType::f32) found.push_back(&k);
  return found;
}

// The largest distance from `expected` (after each step) of the parameters, and from `expected_average` of
// their moving average where there is one, relative to their norm.
double worst_distance(const KernelInfo& kernel, const json& job, const std::vector<float>& start,
                      const std::vector<float>& grads, const std::vector<float>& expected,
                      const std::vector<float>& expected_average) {
  const OptimizerParams settings = optimizer_params(job, static_cast<int64_t>(start.size()));
  const auto n = static_cast<int64_t>(start.size());
  Array params(start), gradient(n), metrics(1, 1), norm(1);
  std::vector<Array> state(static_cast<size_t>(settings.state_count()), Array(n));
  if (settings.ema) state.emplace_back(start);
  alignas(64) StepState step;

  std::vector<View> in{{f32(n), params.data()},
                       {f32(n), gradient.data()},
                       {{DType::u8, {sizeof(StepState)}, Layout::plain}, &step},
                       {f32(1), metrics.data()},
                       {f32(1), norm.data()}};
  std::vector<View> out{in[0]};
  for (Array& s : state) in.push_back({f32(n), s.data()}), out.push_back(in.back());
  const auto specs = [](const std::vector<View>& views) {
    std::vector<TensorSpec> all;
    for (const View& v : views) all.push_back(v.spec);
    return all;
  };
  const auto run = [&](const KernelInfo& info, const std::vector<View>& from, const std::vector<View>& to) {
    const auto from_specs = specs(from), to_specs = specs(to);
    const Params p(settings);
    const auto made = info.make({p, from_specs, to_specs, 1});
    ASSERT_TRUE(made) << info.op << " " << info.name;
    Array workspace(made->workspace_bytes() / 4 + 16);
    made->run({from, to, workspace.data()});
  };

  double worst = 0;
  for (int64_t t = 0; t * n < static_cast<int64_t>(grads.size()); ++t) {
    std::copy_n(grads.data() + t * n, n, gradient.data());
    if (settings.clip_norm > 0)
      run(*Registry::builtin().find("grad_norm", "reference", Device::cpu), {in[1]}, {in[4]});
    step = {.step = t, .lr = job.at("lr")};
    if (settings.ema) step.ema_gain = static_cast<float>(1 - ema_decay(ema_config(job["ema"]), t + 1));
    run(kernel, in, out);
    const auto compare = [&](const float* got, const std::vector<float>& with) {
      const double distance = relative_l2(got, with.data() + t * n, n);
      if (!(distance <= worst)) worst = distance;  // NaN too
    };
    compare(params.data(), expected);
    if (settings.ema) compare(state.back().data(), expected_average);
  }
  return worst;
}

TEST(OptimizerGolden, EveryKernelFollowsPyTorchFor30Steps) {
  const auto file = SafetensorsFile::open(golden("optimizer.safetensors"));
  const auto start = floats(*file, "params"), grads = floats(*file, "grads");
  ASSERT_EQ(start.size(), 200u);
  ASSERT_EQ(grads.size(), 30u * 200u);
  const json cases = json::parse(read_file(golden("optimizer.json")));
  ASSERT_GE(cases.size(), 15u);
  const auto kernels = cpu_kernels("optimizer_step");
  ASSERT_GE(kernels.size(), 2u);

  for (const auto& [label, settings] : cases.items())
    for (const KernelInfo* kernel : kernels) {
      const auto expected = floats(*file, label);
      ASSERT_EQ(expected.size(), grads.size());
      const auto average = settings.contains("ema") ? floats(*file, label + ".ema") : std::vector<float>();
      const double worst = worst_distance(*kernel, settings, start, grads, expected, average);
      // float32 rounds each parameter once a step, by 6e-8 of it at most: 30 steps in random directions give
      // 3e-7.
      EXPECT_LT(worst, 1e-6) << label << " by " << kernel->name;
    }
}

TEST(EmaGolden, DecaysEqualDiffusers) {
  const json cases = json::parse(read_file(golden("ema_decay.json")));
  ASSERT_GE(cases.size(), 4u);
  for (const json& c : cases) {
    ASSERT_EQ(c.at("steps").size(), c.at("decays").size());
    for (size_t i = 0; i < c["steps"].size(); ++i)
      EXPECT_NEAR(ema_decay(ema_config(c["ema"]), c["steps"][i]), c["decays"][i].get<double>(), 1e-15)
          << c["ema"].dump() << " step " << c["steps"][i];
  }
}

TEST(LrScheduleGolden, EqualsPyTorchsSchedulers) {
  const json cases = json::parse(read_file(golden("lr_schedule.json")));
  ASSERT_GE(cases.size(), 13u);
  for (const json& c : cases) {
    LrScheduleConfig s;
    s.name = c.at("name");
    s.warmup_steps = c.value("warmup", 0);
    s.step_size = c.value("step_size", 0);
    s.gamma = c.value("gamma", 0.1);
    s.final_lr_scale = c.value("final_lr_scale", 0.0);
    s.pct_start = c.value("pct_start", s.pct_start);
    s.div_factor = c.value("div_factor", s.div_factor);
    s.final_div_factor = c.value("final_div_factor", s.final_div_factor);
    s.anneal = c.value("anneal", s.anneal);
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
