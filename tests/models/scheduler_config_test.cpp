// SPDX-License-Identifier: Apache-2.0
// scheduler_config.json: what diffusers writes is read, what we write diffusers reads, the rest is refused.
#include "models/diffusion/scheduler_config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::scheduler_config_test {
namespace {

using namespace lockstep::diffusion;
using nlohmann::json;

SchedulerFile parse_text(const std::string& text) {
  return parse_scheduler_config(text, "scheduler_config.json");
}
SchedulerFile parse(const json& object) { return parse_text(object.dump()); }

TEST(SchedulerConfigFile, ReadsAFolderOfThePaper) {
  const SchedulerFile file = parse_text(R"({
    "_class_name": "DDPMScheduler", "_diffusers_version": "0.1.1", "beta_end": 0.02, "beta_schedule": "linear",
    "beta_start": 0.0001, "clip_sample": true, "num_train_timesteps": 1000, "trained_betas": null,
    "variance_type": "fixed_large"})");
  EXPECT_EQ(file.sampler, "ddpm");
  EXPECT_EQ(file.config.variance_type, "fixed_large");
  EXPECT_TRUE(file.config.timestep_spacing.empty());
  EXPECT_TRUE(file.config.refused.empty());
  EXPECT_EQ(make_sampler("ddpm", file.config, 10)->timesteps()[0], 900);   // leading
  EXPECT_EQ(make_sampler("euler", file.config, 10)->timesteps()[0], 999);  // linspace
}

TEST(SchedulerConfigFile, ReadsOtherSchedulersAndPythonsInfinity) {
  const SchedulerFile lms =
      parse_text(R"({"_class_name": "LMSDiscreteScheduler", "skip_prk_steps": true, "steps_offset": 1,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": false})");
  EXPECT_TRUE(lms.sampler.empty());
  EXPECT_EQ(make_sampler("ddim", lms.config, 50)->timesteps()[49], 1);
  const SchedulerFile dpm =
      parse_text(R"({"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity,
    "_name": "a \" and -Infinity"})");
  EXPECT_TRUE(std::isinf(dpm.config.lambda_min_clipped));
}

// The files of models in use: what every key says arrives, under every sampler (their numbers: SamplerGolden).
TEST(SchedulerConfigFile, ReadsStableDiffusions) {
  const json files = json::parse(read_file(LOCKSTEP_SOURCE_DIR "/tests/golden/samplers.json")).at("files");
  const std::pair<std::string, std::string> samplers[] = {{"sd14", "pndm"},           {"sd15", "pndm"},
                                                          {"sd21", "ddim"},           {"sdxl", "euler"},
                                                          {"sd15_dpm", "dpm_solver"}, {"sd15_unipc", ""}};
  for (const auto& [name, sampler] : samplers) {
    SCOPED_TRACE(name);
    const SchedulerFile file = parse_text(files.at(name));
    const SchedulerConfig& c = file.config;
    EXPECT_EQ(file.sampler, sampler);
    EXPECT_EQ(c.schedule.num_train_timesteps, 1000);
    EXPECT_EQ(c.schedule.beta_schedule, "scaled_linear");
    EXPECT_EQ(c.schedule.beta_start, 0.00085);
    EXPECT_EQ(c.schedule.beta_end, 0.012);
    EXPECT_TRUE(c.schedule.trained_betas.empty());
    EXPECT_FALSE(c.schedule.rescale_betas_zero_snr);
    EXPECT_EQ(c.schedule.prediction_type, name == "sd21" ? "v_prediction" : "epsilon");
    EXPECT_EQ(c.steps_offset, 1);
    EXPECT_EQ(c.set_alpha_to_one, std::optional(false));
    EXPECT_TRUE(c.skip_prk_steps);
    EXPECT_EQ(c.clip_sample, name == "sd14");  // the key is newer than the file
    EXPECT_EQ(c.use_karras_sigmas, name == "sd15_dpm");
    EXPECT_EQ(c.solver_order, 2);
    EXPECT_EQ(c.solver_type, "midpoint");
    EXPECT_TRUE(c.lower_order_final);
    EXPECT_TRUE(c.refused.empty());
    for (const SamplerName& s : sampler_names()) {
      const auto made = make_sampler(s.name, c, 20);
      EXPECT_EQ(made->steps(), s.name == "pndm" ? 21 : 20) << s.name;
      const std::string written = scheduler_config_text(s.name, c);
      EXPECT_EQ(parse_text(written).config.set_alpha_to_one.has_value(),
                s.name == "ddim" || s.name == "pndm");
      EXPECT_EQ(scheduler_config_text(s.name, parse_text(written).config), written);
    }
  }
  // What each class does where the file leaves it open.
  const SchedulerConfig open = parse(json{{"_class_name", "PNDMScheduler"}}).config;
  EXPECT_EQ(make_sampler("pndm", open, 10)->steps(), 19);
  EXPECT_FALSE(json::parse(scheduler_config_text("ddim", open)).contains("set_alpha_to_one"));
}

TEST(SchedulerConfigFile, WritesWhatItReads) {
  SchedulerConfig c;
  c.schedule = {.num_train_timesteps = 20,
                .beta_schedule = "sigmoid",
                .beta_end = 0.5,
                .prediction_type = "v_prediction"};
  c.timestep_spacing = "trailing";
  c.steps_offset = 1;
  c.variance_type = "fixed_large";
  c.clip_sample_range = 2;
  c.thresholding = true;
  c.dynamic_thresholding_ratio = 0.9;
  c.sample_max_value = 1.5;
  c.set_alpha_to_one = false;
  c.skip_prk_steps = true;
  c.solver_order = 1;
  c.solver_type = "heun";
  c.lower_order_final = false;
  c.euler_at_final = true;
  c.lambda_min_clipped = -5.1;
  c.use_karras_sigmas = true;
  c.final_sigmas_type = "sigma_min";
  const TestFolder folder;
  for (const SamplerName& name : sampler_names()) {
    c.schedule.rescale_betas_zero_snr = name.name != "pndm";  // which refuses it
    const std::string path = folder.file(name.name + ".json");
    write_scheduler_config(path, name.name, c);
    const SchedulerFile file = read_scheduler_config(path);
    EXPECT_EQ(file.sampler, name.name);
    EXPECT_EQ(file.diffusers_class, name.diffusers_class);
    EXPECT_EQ(file.config.schedule.trained_betas,
              make_betas(c.schedule));  // exactly: float32 goes through JSON whole
    EXPECT_EQ(make_alphas_cumprod(file.config.schedule), make_alphas_cumprod(c.schedule));
    // With the betas listed in both, the same file once more; keys of other classes are not in it.
    const std::string again = scheduler_config_text(name.name, file.config);
    EXPECT_EQ(again, read_file(path));
    EXPECT_EQ(json::parse(again).contains("variance_type"), name.name == "ddpm");
    EXPECT_EQ(json::parse(again).contains("solver_type"), name.name == "dpm_solver");
    EXPECT_EQ(json::parse(again).contains("clip_sample"), name.name == "ddpm" || name.name == "ddim");
    EXPECT_EQ(json::parse(again).contains("skip_prk_steps"), name.name == "pndm");
  }
}

TEST(SchedulerConfigFile, Defects) {
  const json good = {{"_class_name", "DDPMScheduler"}};
  expect_error(
      Exit::no_input, [] { read_scheduler_config("/none/scheduler_config.json"); }, "/none/scheduler_config");
  for (const char* text :
       {"", "{", "[]", "{}", "{\"_class_name\": 3}", "{\"_class_name\": \"DDPMScheduler\",}",
        "{\"_class_name\": \"DDPMScheduler\", \"beta_end\": 1e99999}"})
    expect_error(
        Exit::data, [&] { parse_text(text); }, "scheduler_config.json");
  expect_error(
      Exit::config,
      [] {
        parse(json{{"_class_name", "FlowMatchEulerDiscreteScheduler"}});
      },
      "FlowMatch");
  const std::pair<const char*, json> wrong[] = {{"beta_start", "0.1"},     {"num_train_timesteps", 10.5},
                                                {"clip_sample", 1},        {"prediction_type", nullptr},
                                                {"trained_betas", "x"},    {"trained_betas", {1, "x"}},
                                                {"beta_schedul", "linear"}};
  for (const auto& [key, value] : wrong) {
    json object = good;
    object[key] = value;
    expect_error(
        Exit::config, [&] { parse(object); }, key, "scheduler_config.json");
  }
}

TEST(SchedulerConfigFile, WhatWeDoNotImplementIsRefusedByTheSamplersItConcerns) {
  const std::vector<std::string> all = {"ddpm", "ddim", "pndm", "dpm_solver", "euler", "euler_ancestral"};
  const std::tuple<const char*, json, std::vector<std::string>> options[] = {
      {"use_beta_sigmas", true, {"dpm_solver", "euler"}},
      {"use_exponential_sigmas", true, {"dpm_solver", "euler"}},
      {"sigma_max", 80.0, {"dpm_solver", "euler"}},
      {"algorithm_type", "sde-dpmsolver++", {"dpm_solver"}},
      {"use_lu_lambdas", true, {"dpm_solver"}},
      {"solver_order", 3, {"dpm_solver"}},
      {"interpolation_type", "log_linear", {"euler"}},
      {"timestep_type", "continuous", {"euler"}},
      {"variance_type", "learned_range", all},
      {"predict_epsilon", false, all},
      {"prediction_type", "flow_prediction", all},
      {"beta_schedule", "laplace", all},
      {"prediction_type", "sample", {"pndm", "euler_ancestral"}},
      {"timestep_spacing", "log", all},
      {"thresholding", true, {}},
  };
  for (const auto& [key, value, refusing] : options) {
    const SchedulerFile file = parse(json{{"_class_name", "DDPMScheduler"}, {key, value}});
    for (const SamplerName& s : sampler_names()) {
      const auto make = [&] { make_sampler(s.name, file.config, 10); };
      if (std::find(refusing.begin(), refusing.end(), s.name) == refusing.end())
        EXPECT_NO_THROW(make()) << key << " " << s.name;
      else
        expect_error(Exit::config, make, key, value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
}

TEST(MakeSampler, RefusesWhatMakesNoSense) {
  const SchedulerConfig c;
  expect_error(
      Exit::config, [&] { make_sampler("plms", c, 10); }, "plms", "dpm_solver");
  expect_error(
      Exit::config, [&] { make_sampler("ddim", c, 0); }, "steps=0");
  expect_error(
      Exit::config, [&] { make_sampler("ddim", c, 1001); }, "steps=1001", "num_train_timesteps=1000");
  expect_error(
      Exit::config, [&] { make_sampler("ddim", c, 10, -1); }, "eta=-1");
  expect_error(
      Exit::config, [&] { make_sampler("ddim", c, 10, 3); }, "eta=3");  // more noise than there is
  expect_error(
      Exit::config, [&] { make_sampler("euler", c, 10, 0.5); }, "eta=0.5", "euler");
  SchedulerConfig trailing = c;
  trailing.timestep_spacing = "trailing";
  expect_error(
      Exit::config, [&] { make_sampler("ddim", trailing, 61); }, "steps=61", "trailing");
  SchedulerConfig rescaled = c;
  rescaled.schedule.rescale_betas_zero_snr = true;
  expect_error(
      Exit::config, [&] { make_sampler("ddim", rescaled, 10); }, "rescale_betas_zero_snr", "epsilon");
  rescaled.schedule.prediction_type = "v_prediction";
  expect_error(
      Exit::config, [&] { make_sampler("pndm", rescaled, 10); }, "rescale_betas_zero_snr=true", "pndm");
  SchedulerConfig betas = c;
  betas.schedule.trained_betas = {0.1F, 0.2F};
  expect_error(
      Exit::config, [&] { make_sampler("ddim", betas, 1); }, "trained_betas", "2", "1000");
  betas.schedule.num_train_timesteps = 2;
  betas.schedule.trained_betas = {0.1F, 1.2F};
  expect_error(
      Exit::config, [&] { make_sampler("ddim", betas, 1); }, "1.2", "timestep 1");
  SchedulerConfig clip = c;
  clip.clip_sample_range = 0;
  expect_error(
      Exit::config, [&] { make_sampler("ddpm", clip, 10); }, "clip_sample_range=0");
}

}  // namespace
}  // namespace lockstep::testing::scheduler_config_test
