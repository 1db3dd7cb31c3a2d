// SPDX-License-Identifier: Apache-2.0
// Schedules and samplers against diffusers: tests/golden/make_samplers.py, whose model and noise are repeated
// here.
#include "models/diffusion/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "models/diffusion/scheduler_config.h"
#include "runtime/checkpoint/safetensors.h"
#include "tests/support/files.h"

namespace lockstep::testing::sampler_test {
namespace {

using namespace lockstep::diffusion;
using nlohmann::json;

constexpr int64_t kElements = 48, kBatch = 2, kNumber = kElements * kBatch;

struct Golden {
  json text = json::parse(read_file(LOCKSTEP_SOURCE_DIR "/tests/golden/samplers.json"));
  std::shared_ptr<const SafetensorsFile> tensors =
      SafetensorsFile::open(LOCKSTEP_SOURCE_DIR "/tests/golden/samplers.safetensors");

  std::vector<float> floats(const std::string& name) const {
    const StoredTensor* t = tensors->find(name);
    if (t == nullptr || t->dtype != "F32") throw std::runtime_error("no tensor " + name);
    std::vector<float> values(t->bytes.size() / sizeof(float));
    std::memcpy(values.data(), t->bytes.data(), t->bytes.size());
    return values;
  }
};

const Golden& golden() {
  static const Golden kGolden;
  return kGolden;
}

void evaluate_model(std::span<const float> x, float t, std::span<float> output) {
  const float u = t * 0.001F;
  for (size_t i = 0; i < x.size(); ++i) {
    const float own = static_cast<float>(37 * i % 64) / 64 - 0.5F;
    output[i] = x[i] * (0.3F + 0.6F * u) + own * (1 - u) * 0.5F + (0.25F * x[i]) / (1 + x[i] * x[i]);
  }
}

std::vector<float> draw_noise(int64_t draw) {
  std::vector<float> noise;
  for (uint64_t i = 0; i < kNumber; ++i) {
    const uint64_t index = i + kNumber * static_cast<uint64_t>(draw);
    const auto bits = static_cast<uint32_t>((index * 2654435761U + 12345U) * 40503U);
    noise.push_back((static_cast<float>(bits >> 8) * 0x1p-24F * 2 - 1) * 1.7320508F);
  }
  return noise;
}

std::vector<float> run(Sampler& sampler) {
  std::vector<float> x = draw_noise(0), input(kNumber), output(kNumber), noise;
  for (float& v : x) v *= sampler.init_noise_sigma();
  for (int64_t i = 0; i < sampler.steps(); ++i) {
    sampler.scale_model_input(i, x, input);
    evaluate_model(input, sampler.timesteps()[static_cast<size_t>(i)], output);
    if (sampler.needs_noise(i)) noise = draw_noise(i + 1);
    sampler.step(i, output, x, noise, kElements);
  }
  return x;
}

std::string sampler_of(const std::string& diffusers_class) {
  for (const SamplerName& s : sampler_names())
    if (s.diffusers_class == diffusers_class) return s.name;
  throw std::runtime_error("no sampler for " + diffusers_class);
}

// One combination of a group: the scheduler_config.json that it stands for, steps, eta.
struct Combination {
  std::string file;
  int64_t steps = 0;
  double eta = 0;
  std::string name;
};

Combination combination_of(const json& group, size_t index) {
  json file = {{"_class_name", group.at("class")}};
  const json& axes = group.at("axes");
  for (size_t a = axes.size(); a-- > 0;) {
    file.update(axes[a][index % axes[a].size()]);
    index /= axes[a].size();
  }
  Combination c{.steps = file.at("steps"), .eta = file.value("eta", 0.0)};
  file.erase("steps");
  file.erase("eta");
  c.name = fmt::format("{} steps, eta {}, {}", c.steps, c.eta, file.dump());
  c.file = group.contains("file")
               ? golden().text.at("files").at(group.at("file").get<std::string>()).get<std::string>()
               : file.dump();
  return c;
}

TEST(NoiseSchedule, AlphasCumprodAreDiffusers) {
  const json& schedules = golden().text.at("schedules");
  ASSERT_GE(schedules.size(), 8U);
  for (size_t i = 0; i < schedules.size(); ++i) {
    json file = schedules[i];
    file["_class_name"] = "DDPMScheduler";
    ScheduleConfig schedule = parse_scheduler_config(file.dump(), "golden").config.schedule;
    if (schedule.rescale_betas_zero_snr) schedule.prediction_type = "v_prediction";
    const std::vector<float> ours = make_alphas_cumprod(schedule);
    const std::vector<float> theirs = golden().floats(fmt::format("alphas_cumprod.{}", i));
    ASSERT_EQ(ours.size(), theirs.size());
    // Both round to float32 after each operation. What may differ is the last bit of exp (sigmoid): through a
    // beta of at most 0.5 it changes alphas_cumprod by less than 1e-6 of itself after 1000 factors.
    for (size_t t = 0; t < ours.size(); ++t)
      ASSERT_LE(std::abs(ours[t] - theirs[t]), 1e-6F * theirs[t]) << file.dump() << " t=" << t;
  }
}

class SamplerGolden : public ::testing::TestWithParam<std::string> {};

// The tolerance is the one that users are promised: diffusers' results but for the last bits of exp, log and
// pow, which accumulate over the steps.
TEST_P(SamplerGolden, FinalSamplesAreDiffusersAndWhatItCannotDoIsRefused) {
  const json& group = golden().text.at("groups").at(GetParam());
  const std::string sampler = sampler_of(group.at("class"));
  const std::string outcomes = group.at("outcomes");
  const std::vector<float> finals = golden().floats("finals." + GetParam());
  size_t row = 0;
  double worst = 0;
  for (size_t index = 0; index < outcomes.size(); ++index) {
    const Combination c = combination_of(group, index);
    const auto make = [&] {
      SchedulerConfig config = parse_scheduler_config(c.file, "golden").config;
      config.compat = "diffusers";
      return make_sampler(sampler, config, c.steps, c.eta);
    };
    const float* expected = finals.data() + 9 * row;
    row += outcomes[index] == '.';
    // Zero terminal signal with epsilon prediction is refused whether or not the division by zero is clipped
    // away.
    const bool impossible = c.file.find("\"rescale_betas_zero_snr\":true") != std::string::npos &&
                            c.file.find("\"prediction_type\":\"epsilon\"") != std::string::npos;
    if (outcomes[index] != '.' || impossible) {
      const std::optional<Error> error = error_of([&] { make(); });
      EXPECT_TRUE(error && error->exit() == Exit::config) << outcomes[index] << ": " << c.name;
      continue;
    }
    std::vector<float> x;
    try {
      x = run(*make());
    } catch (const Error& error) {
      ADD_FAILURE() << error.what() << ": " << c.name;
      continue;
    }
    const float tolerance = (c.steps >= 1000 ? 1e-4F : 1e-5F) * expected[8];
    float difference = 0, magnitude = 0;
    for (const float v : x) magnitude = std::max(magnitude, std::abs(v));
    for (size_t k = 0; k < 8; ++k) difference = std::max(difference, std::abs(x[12 * k] - expected[k]));
    difference = std::max(difference, std::abs(magnitude - expected[8]));
    EXPECT_LE(difference, tolerance) << c.name << ": relative " << difference / expected[8];
    worst = std::max(worst, static_cast<double>(difference / expected[8]));
  }
  EXPECT_EQ(row * 9, finals.size());
  RecordProperty("worst_relative_difference", fmt::format("{:.1e}", worst));
}

// diffusers' PNDMScheduler run by hand on a model of one number, 0.5 x + 0.001 t - 0.3, from x = 1: x after each
// evaluation, with Stable Diffusion's schedule.
TEST(Sampler, PndmStepByStep) {
  SchedulerConfig c;
  c.schedule.beta_schedule = "scaled_linear";
  c.schedule.beta_start = 0.00085, c.schedule.beta_end = 0.012;
  c.steps_offset = 1;
  c.skip_prk_steps = true;
  const auto expect_path = [&](int64_t steps, const std::vector<float>& timesteps,
                               const std::vector<float>& path) {
    const auto sampler = make_sampler("pndm", c, steps);
    ASSERT_EQ(sampler->steps(), static_cast<int64_t>(path.size()));
    std::vector<float> x{1};
    for (size_t i = 0; i < path.size(); ++i) {
      const float t = sampler->timesteps()[i];
      EXPECT_EQ(t, timesteps[i]) << i;
      const std::vector<float> output{0.5F * x[0] + 0.001F * t - 0.3F};
      sampler->step(static_cast<int64_t>(i), output, x, {}, 1);
      EXPECT_NEAR(x[0], path[i], 2e-6F) << i;  // six digits are given
    }
  };
  expect_path(1, {1}, {0.997987F});
  expect_path(2, {501, 1, 1}, {0.797002F, 1.272496F, 1.271153F});
  const std::vector<float> five = {801, 601, 601, 401, 201, 1};
  expect_path(5, five, {0.954047F, 1.080696F, 1.200997F, 1.272006F, 1.237723F, 1.236080F});
  c.schedule.prediction_type = "v_prediction";
  expect_path(5, five, {0.758751F, 0.793565F, 0.599206F, 0.479271F, 0.407677F, 0.410169F});
  EXPECT_EQ(make_sampler("pndm", c, 50)->steps(), 51);
  c.skip_prk_steps = false;
  EXPECT_EQ(make_sampler("pndm", c, 50)->steps(), 59);
  expect_error(
      Exit::config, [&] { make_sampler("pndm", c, 3); }, "steps=3", "skip_prk_steps=false", "at least 4");
}

// With a model that knows the noise, each step arrives at the level of the timestep that the model is told next.
TEST(Sampler, WhatAStepArrivesAtIsWhatTheNextIsTold) {
  constexpr float kImage = 0.7F, kNoise = -1.3F;
  for (const std::string name : {"ddim", "pndm"})
    for (const std::string spacing : {"leading", "linspace", "trailing"})
      for (const bool skip_prk_steps : {false, true})
        for (int64_t steps : {7, 10, 40}) {
          SchedulerConfig config;
          config.timestep_spacing = spacing;
          config.clip_sample = false;
          config.skip_prk_steps = skip_prk_steps;
          const auto sampler = make_sampler(name, config, steps);
          const std::vector<float> alphas = make_alphas_cumprod(config.schedule);
          const auto level = [&](int64_t i) {
            const float a = alphas[static_cast<size_t>(sampler->timesteps()[static_cast<size_t>(i)])];
            return std::sqrt(a) * kImage + std::sqrt(1 - a) * kNoise;
          };
          std::vector<float> x{level(0)};
          const std::vector<float> noise{kNoise};
          for (int64_t i = 0; i + 1 < sampler->steps(); ++i) {
            sampler->step(i, noise, x, {}, 1);
            // x is at most 1.5, and a step from the first timesteps multiplies its rounding of 6e-8 by up to
            // 1 / 0.0063, as the signal of timestep 999 is.
            ASSERT_NEAR(x[0], level(i + 1), 1e-4F) << name << " " << spacing << " " << steps << " " << i;
          }
        }
}

// A model that sees an image beyond the limit, always the same one: x is made of the limited image and the noise that was
// there from the start, at each level. diffusers takes the noise that fits the unlimited image, which pushes x the other way.
TEST(Sampler, WhereTheImageIsLimitedTheNoiseIsTheRest) {
  constexpr float kLimited = 1, kNoise = -1.3F;
  for (const std::string compat : {"none", "diffusers"})
    for (const bool thresholding : {false, true}) {
      SchedulerConfig config;
      config.schedule.prediction_type = "sample";
      config.thresholding = thresholding;
      config.compat = compat;
      const auto sampler = make_sampler("ddim", config, 10);
      const std::vector<float> alphas = make_alphas_cumprod(config.schedule);
      const auto level = [&](int64_t i) {
        const float a = alphas[static_cast<size_t>(sampler->timesteps()[static_cast<size_t>(i)])];
        return std::sqrt(a) * kLimited + std::sqrt(1 - a) * kNoise;
      };
      std::vector<float> x{level(0)};
      const std::vector<float> image{1.5F};
      float furthest = 0;
      for (int64_t i = 0; i + 1 < sampler->steps(); ++i) {
        sampler->step(i, image, x, {}, 1);
        // Rounding of x, 6e-8, grows by up to 1 / 0.01 where the noise is divided by the lowest level.
        furthest = std::max(furthest, level(i + 1) - x[0]);
        if (compat == "none") {
          ASSERT_NEAR(x[0], level(i + 1), 1e-5F) << i;
        }
      }
      EXPECT_EQ(furthest > 0.1F, compat == "diffusers") << furthest;
    }
}

// A model that sees no noise leaves of x, with no noise added, what x was of the signal: x / sqrt(alphas_cumprod) of the
// first timestep, whatever the steps. euler starts from x times its largest sigma, sqrt(1 / alphas_cumprod - 1): 2e-5 less
// at timestep 999, the rest is float32 over the steps.
TEST(Sampler, WithoutNoiseTheSignalAloneGrows) {
  for (const SamplerName& name : sampler_names())
    for (const std::string spacing : {"leading", "linspace", "trailing"})
      for (const bool skip_prk_steps : {false, true})
        for (int64_t steps : {7, 10, 50}) {
          SchedulerConfig config;
          config.timestep_spacing = spacing;
          config.clip_sample = false;
          config.set_alpha_to_one = true;
          config.skip_prk_steps = skip_prk_steps;
          const auto sampler = make_sampler(name.name, config, steps);
          const auto first = static_cast<size_t>(sampler->timesteps()[0]);
          const float expected = 1 / std::sqrt(make_alphas_cumprod(config.schedule)[first]);
          std::vector<float> x(4, sampler->init_noise_sigma()), nothing(4, 0.0F);
          for (int64_t i = 0; i < sampler->steps(); ++i) sampler->step(i, nothing, x, nothing, 4);
          EXPECT_NEAR(x[0], expected, 1e-4F * expected) << name.name << " " << spacing << " " << steps;
        }
  // diffusers' ddim leaves the list: the figure is its own.
  SchedulerConfig config;
  config.timestep_spacing = "linspace";
  config.clip_sample = false;
  config.compat = "diffusers";
  const auto sampler = make_sampler("ddim", config, 10);
  std::vector<float> x(4, 1.0F), nothing(4, 0.0F);
  for (int64_t i = 0; i < 10; ++i) sampler->step(i, nothing, x, nothing, 4);
  EXPECT_NEAR(x[0], 100.216F, 1e-2F);
  config.compat = "pytorch";
  expect_error(
      Exit::config, [&] { make_sampler("ddim", config, 10); }, "compat=pytorch");
}

std::vector<std::string> groups() {
  std::vector<std::string> names;
  for (const auto& [name, group] : golden().text.at("groups").items()) names.push_back(name);
  return names;
}
INSTANTIATE_TEST_SUITE_P(Diffusers, SamplerGolden, ::testing::ValuesIn(groups()),
                         [](const auto& param_info) { return param_info.param; });

}  // namespace
}  // namespace lockstep::testing::sampler_test
